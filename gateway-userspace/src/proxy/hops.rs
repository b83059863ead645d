//! `Max-Forwards` (RFC 9110 section 7.6.2): how many more may pass a TRACE or OPTIONS on.

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header, request};

use super::{body::ResponseBody, exchange::Exchange, own, problem};
use crate::observe::Why;

/// Counts one down. False: this is as far as it goes.
pub fn count_down(head: &mut request::Parts) -> Result<bool, Why> {
    let mut values = head.headers.get_all(header::MAX_FORWARDS).iter();
    let (Some(value), more) = (values.next(), values.next()) else { return Ok(true) };
    let digits =
        value.to_str().ok().filter(|text| more.is_none() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let left: u32 = digits.and_then(|text| text.parse().ok()).ok_or(Why::BadRequest)?;
    let Some(left) = left.checked_sub(1) else { return Ok(false) };
    head.headers.insert(header::MAX_FORWARDS, HeaderValue::from(left));
    Ok(true)
}

/// The answer of the one that was meant. TRACE is not told what it sent: that may have been added on the way.
pub fn last(exchange: Exchange, method: &Method) -> Response<ResponseBody> {
    if *method == Method::TRACE {
        return problem::response(exchange, Why::MethodNotAllowed);
    }
    exchange.answers(StatusCode::NO_CONTENT);
    own::answer(exchange, StatusCode::NO_CONTENT, HeaderMap::new(), bytes::Bytes::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_on_and_nothing_else_is_a_number() {
        let counted = |values: &[&str]| {
            let request = http::Request::options("/");
            let request =
                values.iter().fold(request, |request, value| request.header("max-forwards", *value));
            let mut head = request.body(()).unwrap().into_parts().0;
            let goes_on = count_down(&mut head)?;
            Ok::<_, Why>((
                goes_on,
                head.headers.get("max-forwards").map(|left| left.to_str().unwrap().to_owned()),
            ))
        };
        assert_eq!(counted(&[]), Ok((true, None)));
        assert_eq!(counted(&["10"]), Ok((true, Some("9".into()))));
        assert_eq!(counted(&["1"]), Ok((true, Some("0".into()))));
        assert!(!counted(&["0"]).unwrap().0);
        for bad in [&[""][..], &["-1"], &["+1"], &["1,2"], &["x"], &["1", "1"], &["99999999999"]] {
            assert_eq!(counted(bad), Err(Why::BadRequest), "{bad:?}");
        }
    }
}
