//! Heads as they are compressed: RFC 7541.

use super::*;

const BROKEN: Then = Then::Ends(COMPRESSION);

/// A GET with more of this behind it.
fn with(more: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&http2::get("a", &[])[..], more].concat())
}

/// A GET with this in front.
fn behind(first: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &[first, &http2::get("a", &[])].concat())
}

/// "x" with this value, Huffman-coded.
fn coded(value: &[u8]) -> Vec<u8> {
    with(&[&[0, 1, b'x', 0x80 | value.len() as u8][..], value].concat())
}

#[test]
fn what_is_no_hpack_ends_the_connection() -> Result<()> {
    run(vec![
        case("2.3.3/1", "an index that is not there", vec![with(&[0x80 | 70])], BROKEN),
        case("2.3.3/2", "a name's index that is not there", vec![with(&[0x40 | 62, 1, b'a'])], BROKEN),
        case("4.2/1", "the table's size at a head's end", vec![with(&[0x20])], BROKEN),
        case(
            "5.1/1",
            "a number beyond all bounds",
            vec![with(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])],
            BROKEN,
        ),
        case("5.1/2", "a number without an end", vec![with(&[0xff, 0x80])], BROKEN),
        case("5.2/1", "a text without an end", vec![with(&[0, 1, b'x', 9, b'a'])], BROKEN),
        // "1" is 00001, and then ones.
        case("5.2/2", "Huffman padding of more than seven bits", vec![coded(&[0b0000_1111, 0xff])], BROKEN),
        case("5.2/3", "Huffman padding of zeros", vec![coded(&[0b0000_1000])], BROKEN),
        case("5.2/4", "Huffman's EOS", vec![coded(&[0xff, 0xff, 0xff, 0xff])], BROKEN),
        case("6.1/1", "the index of zero", vec![with(&[0x80])], BROKEN),
        case("6.3/1", "a table larger than may be", vec![behind(&[0x3f, 0xe2, 0x1f])], BROKEN),
    ])
}

#[test]
fn every_form_of_a_field_is_read() -> Result<()> {
    let literal = |first: u8| with(&[first, 1, b'x', 1, b'1']);
    let table = frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        1,
        &[http2::get("a", &[]), vec![0x40, 1, b'x', 1, b'1', 0xbe]].concat(),
    );
    run(vec![
        case("6.1/2", "an index", vec![with(&[0x90])], Then::Answers),
        case("6.2.1/1", "a literal that is kept", vec![literal(0x40)], Then::Answers),
        case("6.2.1/2", "and used again", vec![table], Then::Answers),
        case("6.2.1/3", "with an indexed name", vec![with(&[0x40 | 58, 1, b'1'])], Then::Answers),
        case("6.2.2/1", "a literal that is not kept", vec![literal(0)], Then::Answers),
        case("6.2.3/1", "a literal that never is", vec![literal(0x10)], Then::Answers),
        case("5.2/5", "Huffman's code", vec![coded(&[0b0000_1111])], Then::Answers),
        case("6.3/2", "the table's size", vec![behind(&[0x20])], Then::Answers),
        case("6.3/3", "twice", vec![behind(&[0x20, 0x3f, 0xe1, 0x1f])], Then::Answers),
    ])
}
