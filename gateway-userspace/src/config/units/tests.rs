use std::{net::IpAddr, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::config::model::Bind;

fn error<T>(result: Result<T, UnitError>) -> String {
    result.err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn durations_read_as_people_write_them() {
    let table = [("250ms", 250), ("1s", 1_000), ("2m", 120_000), ("1h", 3_600_000), ("1d", 86_400_000)];
    for (text, millis) in table.into_iter().chain([("1m30s", 90_000), ("0s", 0), ("1d2h", 93_600_000)]) {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    assert_eq!(
        error(parse_duration("30")),
        "expected a duration such as \"250ms\", found \"30\" (give a unit: \"30s\" or \"30ms\")"
    );
    for text in
        ["", "s", "1", "1.5s", "1s1m", "1s1s", "-1s", " 1s", "1 s", "1x", "99999999999999999999s", "4000d"]
    {
        assert!(parse_duration(text).is_err(), "{text}");
    }
}

#[test]
fn sizes_read_as_people_write_them() {
    for (text, bytes) in [("512MiB", 512 << 20), ("10KB", 10_000), ("32KiB", 32_768), ("7", 7), ("7B", 7)] {
        assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
    }
    assert!(error("10M".parse::<ByteSize>()).contains("did you mean \"10MiB\"?"));
    assert!(error("10mb".parse::<ByteSize>()).contains("did you mean \"10MB\"?"));
    for text in ["", "MiB", "-1", "1.5MiB", "1 MiB", "99999999TiB"] {
        assert!(text.parse::<ByteSize>().is_err(), "{text}");
    }
}

#[test]
fn quotas_read_as_people_write_them() {
    let table = [
        ("100/s", 100, 1),
        ("20k/s", 20_000, 1),
        ("1001/15m", 1001, 900),
        ("200k/h", 200_000, 3600),
        ("5/d", 5, 86_400),
        ("3M/month", 3_000_000, 30 * 86_400),
        ("10MiB/s", 10 << 20, 1),
    ];
    for (text, amount, seconds) in table {
        let quota: Quota = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((quota.amount, quota.span.duration().as_secs()), (amount, seconds), "{text}");
        assert_eq!(quota.to_string(), text);
        assert_eq!(quota.bytes, text.contains('B'));
    }
    assert_eq!("90/min".parse::<Quota>().map(|quota| quota.to_string()), Ok("90/m".into()));
    for text in [
        "",
        "100",
        "/s",
        "100/",
        "100/x",
        "0/s",
        "-1/s",
        "1.5/s",
        "1e3/s",
        "1/0s",
        "1/500d",
        "9999999G/s",
        "1 /s",
    ] {
        assert!(text.parse::<Quota>().is_err(), "{text}");
    }
}

#[test]
fn rates_read_as_people_write_them() {
    let table = [
        ("100/s", 100.0),
        ("20k/s", 20_000.0),
        ("5/m", 5.0 / 60.0),
        ("200k/h", 200_000.0 / 3600.0),
        ("1M/s", 1e6),
    ];
    for (text, per_second) in table {
        let rate: Rate = text.parse().unwrap_or(Rate { per_second: 0.0 });
        assert_eq!(rate.per_second, per_second);
        assert_eq!(rate.to_string(), text);
    }
    for text in
        ["", "100", "/s", "100/", "100/x", "0/s", "-1/s", "inf/s", "nan/s", "1e3/s", "1.2.3/s", "99999G/s"]
    {
        assert!(text.parse::<Rate>().is_err(), "{text}");
    }
}

#[test]
fn percentages_read_as_people_write_them() {
    assert_eq!("5%".parse(), Ok(Percent(0.05)));
    assert_eq!(Percent(0.07).to_string(), "7%");
    assert_eq!("12.5%".parse::<Percent>().map(|p| p.to_string()), Ok("12.5%".into()));
    assert!("5".parse::<Percent>().is_err() && "-5%".parse::<Percent>().is_err());
}

#[test]
fn a_prefix_with_host_bits_names_the_right_one() {
    let wrong = error("10.1.2.3/8".parse::<Prefix>());
    assert_eq!(
        wrong,
        "10.1.2.3/8 has host bits set (write \"10.0.0.0/8\", or \"10.1.2.3\" for the one address)"
    );
    assert!(error("2001:db8::1/32".parse::<Prefix>()).contains("write \"2001:db8::/32\""));
    assert!(error("10.0.0.0/33".parse::<Prefix>()).contains("over /32"));
    for text in ["", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/8/8", "x/8", "::/129", "010.0.0.1"] {
        assert!(text.parse::<Prefix>().is_err(), "{text}");
    }
}

#[test]
fn mapped_addresses_and_prefixes_are_ipv4() {
    let ten: Prefix = "10.0.0.0/8".parse().expect("valid");
    assert_eq!("::ffff:10.0.0.0/104".parse(), Ok(ten));
    assert_eq!("::ffff:10.0.0.1".parse::<Prefix>(), "10.0.0.1/32".parse());
    assert!(ten.contains("::ffff:10.9.9.9".parse().expect("valid")));
    assert!(!ten.contains("11.0.0.0".parse().expect("valid")));
    assert!(ten.covers(&"10.1.0.0/16".parse().expect("valid")));
    assert!(!ten.covers(&"0.0.0.0/0".parse().expect("valid")));
    let all6: Prefix = "::/0".parse().expect("valid");
    assert!(
        !all6.contains("10.0.0.1".parse().expect("valid")) && all6.contains("::1".parse().expect("valid"))
    );
    assert!("0.0.0.0/0".parse::<Prefix>().expect("valid").covers(&ten));
}

#[test]
fn binds_overlap_where_an_address_is_in_both() {
    let overlaps = |a: &str, b: &str| {
        let (a, b): (Bind, Bind) = (a.parse().expect("valid"), b.parse().expect("valid"));
        assert_eq!(a.overlaps(b), b.overlaps(a));
        a.overlaps(b)
    };
    assert!(overlaps(":80", "127.0.0.1:80"));
    assert!(overlaps(":80", "[::1]:80"));
    assert!(overlaps("0.0.0.0:80", "127.0.0.1:80"));
    assert!(overlaps("[::]:80", "0.0.0.0:80"));
    assert!(!overlaps("0.0.0.0:80", "[::1]:80"));
    assert!(!overlaps("127.0.0.1:80", "127.0.0.2:80"));
    assert!(!overlaps(":80", ":81"));
    assert!(!overlaps(":0", ":0"));
}

#[test]
fn addresses_teach_the_right_form() {
    assert_eq!("localhost:80".parse::<Bind>(), "127.0.0.1:80".parse());
    assert!(error("80".parse::<Bind>()).contains("write \":80\""));
    assert!(error("*:80".parse::<Bind>()).contains("write \":80\""));
    assert!(error("127.0.0.1".parse::<Bind>()).contains("add the port: \"127.0.0.1:80\""));
    assert!(error("::1:80".parse::<Bind>()).contains("brackets"));
    assert!(
        "99999".parse::<Bind>().is_err() && ":99999".parse::<Bind>().is_err() && "".parse::<Bind>().is_err()
    );

    let target = |text| parse_target(text).map(|addr| addr.to_string());
    assert_eq!(target("10.0.0.1:80"), Ok("10.0.0.1:80".into()));
    assert_eq!(target("http://10.0.0.1:81/"), Ok("10.0.0.1:81".into()));
    assert_eq!(target("http://10.0.0.1"), Ok("10.0.0.1:80".into()));
    assert_eq!(target("http://[::1]"), Ok("[::1]:80".into()));
    assert_eq!(target("localhost:3000"), Ok("127.0.0.1:3000".into()));
    assert_eq!(target("http://localhost:3000"), Ok("127.0.0.1:3000".into()));
    assert!(error(target("10.0.0.1")).contains("add the port: \"10.0.0.1:80\""));
    assert!(error(target("0.0.0.0:80")).contains("write \"127.0.0.1:80\""));
    assert!(error(target("http://10.0.0.1:80/x")).contains("without a path"));
    assert!(parse_target("10.0.0.1:0").is_err());
    assert_eq!(target("https://10.0.0.1"), Ok("10.0.0.1:443".into()));
    assert_eq!(target("https://[::1]:8443/"), Ok("[::1]:8443".into()));
    assert!(error(target("h2c://10.0.0.1:80")).contains("protocol = \"h2\""));
    for later in ["https://llm.internal", "app.internal:8080", "unix:/run/app.sock"] {
        assert!(parse_target(later).is_err_and(|error| error.not_supported), "{later}");
    }
}

#[test]
fn byte_rates_are_sizes_per_time() {
    let rate = |text| parse_byte_rate(text).map(|rate| rate.per_second);
    assert_eq!(rate("10MiB/s"), Ok(10_485_760.0));
    assert_eq!(rate("125MB/s"), Ok(125e6));
    assert_eq!(rate("60KB/m"), Ok(1000.0));
    assert_eq!(parse_byte_rate("125MB/s").map(show_byte_rate), Ok("125MB/s".into()));
    assert!(error(rate("10M/s")).contains("did you mean \"10MiB\"?"));
    assert!(error(rate("10MiB")).contains("write what it is per"));
    assert!(error(rate("10MiB/w")).contains("per s, m, h or d"));
    for wrong in ["", "/s", "0B/s", "-1B/s", "2TB/s", "1.5MB/s"] {
        assert!(parse_byte_rate(wrong).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn durations_round_trip(micros in 0..315_360_000_000_000u64) {
        let duration = Duration::from_micros(micros);
        prop_assert_eq!(parse_duration(&show_duration(duration)), Ok(duration));
    }

    #[test]
    fn sizes_round_trip(bytes in 0..=i64::MAX as u64, shift in 0..40u32) {
        let size = ByteSize(bytes >> shift << (shift / 2));
        prop_assume!(i64::try_from(size.0).is_ok());
        prop_assert_eq!(size.to_string().parse(), Ok(size));
    }

    #[test]
    fn rates_round_trip(count in 1..1_000_000u32, factor in prop::sample::select(vec!["", "k", "M"]),
                        per in prop::sample::select(vec!["s", "m", "h", "d"]), odd in 1e-6..1e12f64) {
        let rate: Rate = format!("{count}{factor}/{per}").parse().expect("valid");
        prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        let odd = Rate { per_second: odd };
        prop_assert_eq!(odd.to_string().parse(), Ok(odd));
    }

    #[test]
    fn byte_rates_round_trip(count in 1..900_000u32, unit in prop::sample::select(vec!["B", "KB", "KiB", "MB", "MiB"]),
                             per in prop::sample::select(vec!["s", "m", "h", "d"])) {
        let rate = parse_byte_rate(&format!("{count}{unit}/{per}")).expect("valid");
        prop_assert_eq!(parse_byte_rate(&show_byte_rate(rate)), Ok(rate));
    }

    #[test]
    fn prefixes_round_trip(bits in any::<u128>(), len in 0..=128u8, v4 in any::<bool>()) {
        let addr: IpAddr = match v4 {
            true => std::net::Ipv4Addr::from_bits(bits as u32).into(),
            false => std::net::Ipv6Addr::from_bits(bits).into(),
        };
        if let Ok(prefix) = Prefix::new(addr, if v4 { len.min(32) } else { len }) {
            prop_assert_eq!(prefix.to_string().parse(), Ok(prefix));
            prop_assert!(prefix.contains(prefix.addr) && prefix.covers(&prefix));
        }
        prop_assert!(Prefix::host(addr).contains(addr));
    }

    #[test]
    fn any_text_is_a_value_or_an_error(text in "\\PC{0,24}", sharp in "[0-9a-z:/.%\\[\\]]{0,16}") {
        for text in [text, sharp] {
            let _ = (parse_duration(&text), text.parse::<ByteSize>(), text.parse::<Rate>(), text.parse::<Percent>());
            let _ = (text.parse::<Prefix>(), text.parse::<Bind>(), parse_target(&text));
        }
    }
}
