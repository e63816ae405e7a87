//! Literals that the parser would read wrongly.

use async_graphql_parser::types::DocumentOperations;
use async_graphql_value::{ConstValue, Value};

use super::*;

/// The value of the only argument in a document.
fn value(literal: &str) -> Value {
    let document = prepare(&format!("{{a(x: {literal})}}")).unwrap_or_else(|error| panic!("{literal}: {error}"));
    let DocumentOperations::Single(operation) = document.validated().operations else { panic!("several") };
    let Selection::Field(field) = &operation.node.selection_set.node.items[0].node else { panic!("no field") };
    field.node.arguments[0].1.node.clone()
}

fn text(literal: &str) -> String {
    match value(literal) {
        Value::String(text) => text,
        other => panic!("{literal}: {other:?}"),
    }
}

#[test]
fn every_character_has_its_escapes() {
    for (literal, expected) in [
        (r#""\uD83D\uDE00""#, "😀"),
        (r#""\ud83d\ude00 \u{1F600}\u{1f600} \u{e9}\u00E9""#, "😀 😀😀 éé"),
        (r#""\u{10FFFF}\u{0}\u{000041}""#, "\u{10ffff}\u{0}A"),
        (r#""\\ud83d \\u{x} \"\/\b\f\n\r\t""#, "\\ud83d \\u{x} \"/\u{8}\u{c}\n\r\t"),
        (r#""😀""#, "😀"),
        ("\"\u{f0000}\"", "\u{f0000}"),
        ("\"\u{f0000}\\u{1}\"", "\u{f0000}\u{1}"),
        (r#""""#, ""),
    ] {
        assert_eq!(text(literal), expected, "{literal}");
        // Beside a literal that is replaced, the others stay what they are.
        let beside = format!(r#"["\u{{1F600}}" {literal} 1E5 {literal}]"#);
        let expected = Value::String(expected.to_owned());
        let Value::List(items) = value(&beside) else { panic!("{beside}") };
        let number = Value::Binary("1E5".into());
        assert_eq!(items, [Value::String("😀".to_owned()), expected.clone(), number, expected], "{beside}");
    }
}

#[test]
fn escapes_for_no_character_are_refused() {
    for (literal, reason) in [
        (r#""\uD83D""#, "half of a surrogate pair"),
        (r#""\uDE00\uD83D""#, "half of a surrogate pair"),
        (r#""\uD83D\u0041""#, "half of a surrogate pair"),
        (r#""\uD83D\uD83D""#, "half of a surrogate pair"),
        (r#""\u{110000}""#, "stands for no character"),
        (r#""\u{D83D}""#, "stands for no character"),
        (r#""\u{}""#, "stands for no character"),
        (r#""\u{1F600""#, "stands for no character"),
        (r#""\u{+1}""#, "stands for no character"),
        (r#""\uD83D\u{DE00}""#, "half of a surrogate pair"),
        (r#""\u{1}\x""#, "stands for no character"),
    ] {
        let error = refuse(&format!("{{\n  a(x: {literal})}}"));
        assert_eq!((error.kind, &*error.locations), (ErrorKind::Syntax, &[(2, 8)][..]), "{literal}");
        assert!(error.message.contains(reason), "{literal}: {error}");
    }
}

#[test]
fn block_strings_are_as_the_specification_has_them() {
    let block = |inside: &str| text(&format!("\"\"\"{inside}\"\"\""));
    for (inside, expected) in [
        ("", ""),
        ("one", "one"),
        ("  one  ", "  one  "),
        (" \n\t\n", ""),
        ("\n    Hello,\n      World!\n\n    Yours,\n      GraphQL.\n  ", "Hello,\n  World!\n\nYours,\n  GraphQL."),
        ("one\r\n  two\r    three", "one\ntwo\n  three"),
        ("\n    a\n \n    b", "a\n\nb"),
        (r#"say \"""quoted\""" \n \u{1F600}"#, r#"say """quoted""" \n \u{1F600}"#),
        ("\n  \\\"\"\"\n", "\"\"\""),
        ("\n é\n  漢", "é\n 漢"),
    ] {
        assert_eq!(block(inside), expected, "{inside:?}");
    }
    assert_eq!(text(r#"""" " """"#), " \" ");
}

/// A number, or what stands for it, as it would be written.
fn spelled(value: &Value) -> String {
    match value {
        Value::Number(number) => number.to_string(),
        Value::Binary(text) => String::from_utf8(text.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn numbers_keep_their_spelling() {
    for odd in ["1E5", "1e400", "-1.50E-07", "0.10", "-0", "-0.0", "123456789012345678901234567890", "1.0e+2"] {
        assert_eq!(spelled(&value(odd)), odd);
        let Value::List(items) = value(&format!("[\"\"{odd}\"\"]")) else { panic!("{odd}") };
        assert_eq!((items.len(), spelled(&items[1])), (3, odd.to_owned()));
        let document = prepare(&format!("query($x: JSON = {{n: {odd}}}) {{a(x: $x)}}")).unwrap();
        let mut given = Variables::default();
        document.fill_defaults(None, &mut given);
        let Some(ConstValue::Object(fields)) = given.get("x") else { panic!("{odd}") };
        assert_eq!(spelled(&fields["n"].clone().into()), odd);
    }
    for plain in ["0", "7", "-12", "1.5", "18446744073709551615"] {
        assert!(matches!(value(plain), Value::Number(number) if number.to_string() == plain), "{plain}");
    }
    for bad in ["1E5a", "01", "1.", "1e", "1.5.2", "-", "0x1"] {
        assert_eq!(refuse(&format!("{{a(x: {bad})}}")).kind, ErrorKind::Syntax, "{bad}");
    }
}

#[test]
fn an_object_has_each_key_once() {
    for (bad, at) in [
        ("{a(x: {k: 1, k: 2})}", (1, 14)),
        ("{a(x: [{b: {k: {k: 1}, k: 2}}])}", (1, 24)),
        ("{a(x: {k: \"\\u{1F600}\", k: 2})}", (1, 24)),
        ("query($x: JSON = {k: 1, k: 1}) {a(x: $x)}", (1, 25)),
        ("{a @b(x: {k: 1 k: 2})}", (1, 16)),
    ] {
        let error = refuse(bad);
        assert_eq!((error.kind, &*error.locations), (ErrorKind::Validation, &[at][..]), "{bad}");
        assert_eq!(error.message, "There can be only one input field named \"k\".");
    }
    for good in ["{a(x: {k: {k: 1}, l: [{k: 2}, {k: 3}]})}", "{k: a k: a}", "{b: a(k: 1) k: a(k: 1)}"] {
        assert!(prepare(good).is_ok(), "{good}");
    }
}

/// What stands behind a literal that is replaced is where it was.
#[test]
fn errors_name_the_place_in_the_text_as_it_was_sent() {
    for before in ["1E5", "\"\\u{1F600} \\\\\"", "\"\"\"one\n  two \\\"\"\"\n  three\"\"\"", "-1.250e-17"] {
        let text = format!("{{a(x: {before}) ?");
        let plain = format!("{{a(x: {}) ?", "\"\"\"".to_owned() + &before.replace(['"', '\\'], "_") + "\"\"\"");
        let (one, other) = (refuse(&text).locations[0], refuse(&plain).locations[0]);
        assert_eq!(one.0, other.0, "{before}");
        let text = format!("{{a(x: {before}) b(: 1)}}");
        let line = text.rsplit('\n').next().unwrap();
        let column =
            line.chars().position(|c| c == ':').map(|_| line.find("(:").map(|at| line[..at].chars().count() + 2));
        assert_eq!(refuse(&text).locations, [(text.matches('\n').count() + 1, column.flatten().unwrap())], "{before}");
    }
}

#[test]
fn no_number_of_placeholders_is_too_many() {
    let items = many(4_000, |i| format!("{i}E{i} "));
    assert!(matches!(value(&format!("[{items}]")), Value::List(items) if items.len() == 4_000
        && items[3_999] == Value::Binary("3999E3999".into())));
}
