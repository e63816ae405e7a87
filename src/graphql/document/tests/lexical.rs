use async_graphql_parser::parse_query;
use async_graphql_parser::types::{Selection, SelectionSet};
use async_graphql_value::Value;

use super::super::scan::{scan, tokens};
use super::*;

fn check(text: &str) -> Result<(), DocumentError> {
    scan(text, &DocumentLimits::default())
}

fn count(text: &str) -> usize {
    tokens(text, &DocumentLimits::default())
}

#[test]
fn counts_what_the_grammar_takes_for_tokens() {
    assert_eq!(count("{ a , b } # { comment"), 4);
    assert_eq!(count("query Q($a: [Int!]! = -1.5e+3) @d { ...F }"), 20);
    assert_eq!(count("\u{feff}{a(b:\"{{{\\\"{\" c:\"\"\"{ \\\"\"\" \" {\"\"\")}"), 11);
    // To the parser these are lists of several values.
    assert_eq!(count("[truetruenullfalse]"), 6);
    assert_eq!(count("[007]"), 5);
    assert_eq!(count("[1-1-1]"), 5);
    assert_eq!(count("trueish"), 2);
    for list in ["[truetruenullfalse]", "[007]", "[1-1-1]"] {
        let text = format!("{{a(b:{list})}}");
        let values = text_values(&text);
        assert!(values <= count(&text), "{list}: {values}");
    }
}

/// The values in a document, as the parser sees them.
fn text_values(text: &str) -> usize {
    fn values(value: &Value) -> usize {
        match value {
            Value::List(items) => 1 + items.iter().map(values).sum::<usize>(),
            Value::Object(fields) => 1 + fields.values().map(values).sum::<usize>(),
            _ => 1,
        }
    }
    let document = parse_query(text).unwrap();
    let (_, operation) = document.operations.iter().next().unwrap();
    let items = &operation.node.selection_set.node.items;
    let fields = items.iter().filter_map(|item| match &item.node {
        Selection::Field(field) => Some(&field.node.arguments),
        _ => None,
    });
    fields.flatten().map(|(_, value)| values(&value.node)).sum()
}

#[test]
fn bounds_nesting_of_every_bracket() {
    for (open, close) in [("{a", "}"), ("[", "]"), ("(", ")"), ("{a(b:[{c:", "}])}")] {
        let each = open.matches(['{', '[', '(']).count();
        let fits = 72 / each;
        let nested = |n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
        assert_eq!(check(&nested(fits)), Ok(()), "{open}");
        let error = check(&nested(fits + 1)).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooComplex, "{open}");
    }
    // Brackets closed again do not add up, and those of different sorts do.
    assert_eq!(check(&"{[()]}".repeat(500)), Ok(()));
    assert!(check(&"{[(".repeat(25)).is_err());
}

#[test]
fn bounds_bytes_and_tokens() {
    assert_eq!(check(&" ".repeat(65_536)), Ok(()));
    let error = check(&" ".repeat(65_537)).unwrap_err();
    assert_eq!((error.kind, error.locations), (ErrorKind::TooComplex, vec![]));
    assert_eq!(check(&"a ".repeat(5_000)), Ok(()));
    let error = check(&"a ".repeat(5_001)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooComplex);
    assert_eq!(error.locations, vec![(1, 10_001)]);
    for text in ["true", "0", "-1", "null", "1-1", "[]", "\"\"", "...", "!"] {
        let error = check(&text.repeat(60_000 / text.len())).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooComplex, "{text}");
    }
}

#[test]
fn refuses_what_cannot_be_a_token() {
    for text in ["{a(b:\"x)}", "{a(b:\"x\\\")}", "{a(b:\"x\n\")}", "{a(b:\"\"\"x\")}", "\"\\"] {
        let error = check(text).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Syntax);
        assert!(error.message.contains("no end"), "{error}");
    }
    for text in ["{a}}", "]", "{a", "{a %}", "{a ..}", "{ä}", "{a(b:'c')}", "{a}\u{0}"] {
        assert_eq!(check(text).unwrap_err().kind, ErrorKind::Syntax, "{text}");
    }
    let error = check("{a\r\n  ä ?}").unwrap_err();
    assert_eq!(error.locations, vec![(2, 3)]);
    assert_eq!(check("# ä\n\u{feff}{b(c:\"ä\") ?}").unwrap_err().locations, [(2, 12)]);
}

#[test]
fn a_block_string_without_end_hides_no_brackets() {
    // The grammar would read `""`, then the string ` x`, and then descend.
    let text = format!("{{a(b:[\"\"\" x\" {}", "[".repeat(60_000));
    assert_eq!(check(&text).unwrap_err().kind, ErrorKind::Syntax);
}

/// How deep the parser went for a document: its selection sets and values.
fn depth(set: &SelectionSet) -> usize {
    fn value(of: &Value) -> usize {
        match of {
            Value::List(items) => 1 + items.iter().map(value).max().unwrap_or(0),
            Value::Object(fields) => 1 + fields.values().map(value).max().unwrap_or(0),
            _ => 0,
        }
    }
    let items = set.items.iter().map(|item| match &item.node {
        Selection::Field(field) => {
            let arguments = field.node.arguments.iter();
            let arguments = arguments.map(|(_, argument)| 1 + value(&argument.node)).max();
            depth(&field.node.selection_set.node).max(arguments.unwrap_or(0))
        }
        Selection::InlineFragment(inline) => depth(&inline.node.selection_set.node),
        Selection::FragmentSpread(_) => 0,
    });
    match items.max() {
        None => 0,
        Some(inner) => 1 + inner,
    }
}

#[test]
fn whatever_parses_is_as_shallow_as_the_scan_said() {
    const SEEDS: [&str; 4] = [
        "{a(b:[{c:[1 2]}]){d}}",
        "query($a:[Int]=[1]){a(b:\"{\" c:\"\"\"[\"\"\"){...{d}}}#{\n",
        "{a(b:\"\\\"{\"){b}} fragment F on T{a}",
        "{a(b:[[\"\"\"\\\"\"\"[\"\"\" \"[\"]])}",
    ];
    const PIECES: [&str; 20] = [
        "{", "}", "[", "]", "(", ")", "\"", "\"\"\"", "\\", "#", "\n", "a", ":", "1", " ", "...", "\"\"", "{a}", "[1]",
        "\r",
    ];
    let limits = DocumentLimits { max_nesting: 6, ..DocumentLimits::default() };
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    let mut parsed = 0;
    for _ in 0..8_000 {
        let mut text = SEEDS[next(SEEDS.len())].to_owned();
        for _ in 0..=next(4) {
            let at = next(text.len() + 1);
            if next(3) == 0 && at < text.len() {
                text.remove(at);
            } else {
                text.insert_str(at, PIECES[next(PIECES.len())]);
            }
        }
        if scan(&text, &limits).is_ok()
            && let Ok(document) = parse_query(&text)
        {
            parsed += 1;
            for (_, operation) in document.operations.iter() {
                assert!(depth(&operation.node.selection_set.node) <= 6, "{text}");
            }
        }
    }
    assert!(parsed > 400, "{parsed}");
}

#[test]
fn the_deepest_permitted_document_fits_a_small_stack() {
    let value = format!("{{a(b:{}{})}}", "[".repeat(70), "]".repeat(70));
    let object = format!("{{a(b:{}1{})}}", "{c:".repeat(70), "}".repeat(70));
    let set = format!("{}b{}", "{a".repeat(64), "}".repeat(64));
    let types = format!("query($a:{}Int{}){{b}}", "[".repeat(71), "]".repeat(71));
    let thread = std::thread::Builder::new().stack_size(576 * 1024);
    let run = move || {
        assert!(prepare(&value).is_ok());
        assert!(prepare(&object).is_ok());
        assert!(prepare(&types).is_ok());
        assert_eq!(refuse(&set).kind, ErrorKind::TooComplex);
    };
    thread.spawn(run).unwrap().join().unwrap();
}
