use super::super::OperationKind;
use super::*;

fn too_complex(text: &str) -> DocumentError {
    let error = refuse(text);
    assert_eq!(error.kind, ErrorKind::TooComplex, "{error}");
    error
}

fn invalid(text: &str) -> DocumentError {
    let error = refuse(text);
    assert_eq!(error.kind, ErrorKind::Validation, "{error}");
    error
}

#[test]
fn the_introspection_query_passes() {
    let document = prepare(&introspection(9)).unwrap();
    let facts = document.operation(Some("IntrospectionQuery")).unwrap();
    assert_eq!(facts.kind, OperationKind::Query);
    assert_eq!(facts.depth, 15);
    assert_eq!(facts.root_fields, 1);
    assert!(facts.selections < 300, "{}", facts.selections);
    // The documented estimate, by which the limit was chosen.
    let third = DocumentLimits { max_introspection: 250_000 / 3, ..DocumentLimits::default() };
    assert!(Document::prepare(&introspection(9), &third).is_ok());
    assert!(too_complex(&introspection(10)).message.contains("levels of fields"));
}

#[test]
fn introspection_may_not_go_in_circles() {
    let circle = |n: usize| {
        let open = "fields{type{".repeat(n);
        format!("{{__schema{{types{{{open}name{}}}}}}}", "}}".repeat(n))
    };
    assert!(prepare(&circle(4)).is_ok());
    assert!(too_complex(&circle(5)).message.contains("introspection"));
    // The same through fragments, and nothing of it counts outside of introspection.
    let split = "{...A} fragment A on Query{__schema{...B}} fragment B on __Schema{types{...C}}\
        fragment C on __Type{fields{type{fields{type{...D}}}}}\
        fragment D on __Type{fields{type{fields{type{fields{type{name}}}}}}}";
    assert!(too_complex(split).message.contains("introspection"));
    assert!(prepare(&circle(5).replace("__schema", "schema")).is_ok());
}

#[test]
fn selections_are_counted_expanded() {
    let facts = |text: &str| prepare(text).unwrap().operation(None).unwrap().clone();
    let found = facts(
        "{a ...F ... on Query{b}} fragment F on Query{x:c{d @skip(if:true)} ...G ...G}
        fragment G on Query{e}",
    );
    assert_eq!(found.selections, 10);
    assert_eq!((found.aliases, found.directives), (1, 1));
    assert_eq!((found.depth, found.root_fields), (2, 5));
    assert_eq!(facts("{a{b{c}}}").depth, 3);
    assert!(prepare(&format!("{{{}}}", "a ".repeat(2_000))).is_ok());
    too_complex(&format!("{{{}}}", "a ".repeat(2_001)));
    // All operations count together.
    let two = |n: usize| format!("query A{{{}}} query B{{a}}", "a ".repeat(n));
    assert!(prepare(&two(1_999)).is_ok());
    too_complex(&two(2_000));
}

#[test]
fn doubling_fragments_are_counted_without_being_followed() {
    for depth in [9, 12, 29] {
        let text = tree(2, depth);
        let (result, steps) = counted(&text);
        assert_eq!(result.unwrap_err().kind, ErrorKind::TooComplex);
        assert!(steps < 20 * depth as u64 + 50, "{depth}: {steps}");
    }
    let (result, steps) = counted(&tree(2, 8));
    let selections = result.unwrap().operation(None).unwrap().selections;
    assert!(selections > 1_000, "{selections}");
    assert!(steps < 3_000, "{steps}");
    // Saturating: 40 to the 29th.
    let (result, steps) = counted(&tree(5, 29));
    assert_eq!(result.unwrap_err().kind, ErrorKind::TooComplex);
    assert!(steps < 2_000, "{steps}");
}

#[test]
fn a_chain_of_fragments_is_bounded_without_recursion() {
    let chain = |n: usize| {
        let links = many(n, |i| format!("fragment f{i} on Query{{...f{}}}", i + 1));
        format!("{{...f0}}{links}fragment f{n} on Query{{a}}")
    };
    assert!(prepare(&chain(30)).is_ok());
    too_complex(&chain(31));
    let (result, steps) = counted(&chain(600));
    assert_eq!(result.unwrap_err().kind, ErrorKind::TooComplex);
    assert!(steps < 6_000, "{steps}");
    // A chain of thousands needs other limits to get this far.
    let limits = DocumentLimits { max_tokens: 1_000_000, max_bytes: 1_000_000, ..DocumentLimits::default() };
    let error = Document::prepare(&chain(20_000), &limits).unwrap_err();
    assert_eq!(error.kind, ErrorKind::TooComplex);
}

#[test]
fn cycles_are_refused() {
    for text in [
        "{...A} fragment A on Query{...A}",
        "{...A} fragment A on Query{a{...B}} fragment B on T{b{...{...A}}}",
        "{a} fragment A on Query{...B} fragment B on Query{...A}",
    ] {
        assert!(invalid(text).message.contains("within itself"), "{text}");
    }
    let ring = many(500, |i| format!("fragment f{i} on Q{{...f{}}}", (i + 1) % 500));
    let (result, steps) = counted(&format!("{{...f0}}{ring}"));
    assert_eq!(result.unwrap_err().kind, ErrorKind::Validation);
    assert!(steps < 5_000, "{steps}");
    let twice = "{...A ...A} fragment A on Query{...B} fragment B on Query{a}";
    assert!(prepare(twice).is_ok());
}

#[test]
fn fragments_must_exist_once_and_be_used() {
    // Unknown ones are for async-graphql to report.
    assert!(prepare("{...Nope}").is_ok());
    assert!(prepare("{...A} fragment A on Query{...Nope}").is_ok());
    assert!(invalid("{a} fragment A on Query{a}").message.contains("never used"));
    let both = "{a} fragment A on Query{...B} fragment B on Query{a}";
    assert_eq!(invalid(both).locations, vec![(1, 5)]);
    let twice = "{...A} fragment A on Query{a} fragment A on Query{b}";
    assert!(invalid(twice).message.contains("twice"));
}

#[test]
fn aliases_and_directives_are_counted_expanded() {
    let aliases = |n: usize| format!("{{{}}}", many(n, |i| format!("a{i}:a ")));
    assert!(prepare(&aliases(50)).is_ok());
    too_complex(&aliases(51));
    too_complex(&aliases(1_000));
    let spread = format!("{{{}}}fragment F on T{{x:a y:b}}", "a{...F}".repeat(26));
    too_complex(&spread);
    let directives = |n: usize| format!("{{a {}}}", "@skip(if:false)".repeat(n));
    assert!(prepare(&directives(50)).is_ok());
    too_complex(&directives(51));
    let (result, steps) = counted(&format!("{{a {}}}", "@a ".repeat(2_400)));
    assert_eq!(result.unwrap_err().kind, ErrorKind::TooComplex);
    assert!(steps < 12_000, "{steps}");
    let everywhere = "query @a {...F @b ...@c{x}} fragment F on Query @d {y @e}";
    let document = prepare(everywhere).unwrap();
    assert_eq!(document.operation(None).unwrap().directives, 5);
}

#[test]
fn values_are_counted_expanded() {
    let list = "1 ".repeat(2_000);
    assert!(prepare(&format!("{{a(b:[{list}])}}")).is_ok());
    let repeated = format!("{{x{{...F}} y{{...F}} z{{...F}} u{{...F}}}}fragment F on T{{a(b:[{list}])}}");
    assert!(too_complex(&repeated).message.contains("bytes of values"));
    let text = "x".repeat(60_000);
    assert!(prepare(&format!("{{a(b:\"{text}\")}}")).is_ok());
    let many_times = many(9, |i| format!("a{i}{{...F}}"));
    too_complex(&format!("{{{many_times}}}fragment F on T{{a(b:\"{text}\")}}"));
    // A default value counts as often as the variable is used.
    let used = many(9, |i| format!("a{i}(b:$v)"));
    too_complex(&format!("query($v:String=\"{text}\"){{{used}}}"));
}

#[test]
fn uses_of_variables_are_counted_expanded() {
    let uses = |n: usize| format!("query($v:[Int]){{a(b:[{}])}}", "$v ".repeat(n));
    assert!(prepare(&uses(500)).is_ok());
    too_complex(&uses(501));
    // async-graphql would report each variable for each operation.
    let operations = many(49, |i| format!("query q{i}{{...F}}"));
    let used = many(100, |i| format!("$v{i} "));
    too_complex(&format!("{operations}fragment F on Query{{a(b:[{used}])}}"));
}

#[test]
fn operations_and_arguments_are_counted() {
    let operations = |n: usize| many(n, |i| format!("query q{i}{{a}}"));
    assert!(prepare(&operations(50)).is_ok());
    too_complex(&operations(51));
    let arguments = |n: usize| format!("{{a({})}}", many(n, |i| format!("x{i}:1 ")));
    assert!(prepare(&arguments(64)).is_ok());
    too_complex(&arguments(65));
}

#[test]
fn conflicts_are_found_at_the_first() {
    for (text, conflict) in [
        ("{a:b a:c}", true),
        ("{a(x:1) a}", true),
        ("{a(x:1) a(x:2)}", true),
        ("{a(x:1 y:2) a(y:2 x:1)}", false),
        ("{a ...F} fragment F on Query{a:b}", true),
        ("{...on Query{a:b} a}", true),
        ("{...on X{a} ...on Y{a:b} a}", true),
        ("{...on X{a} ...on Y{...@skip(if:true){a:b}}}", false),
        ("{...F ...G} fragment F on Query{a} fragment G on Query{a:b}", true),
        ("{...on X{a} ...on Y{a:b}}", false),
        ("{...on X{a ...{a:b}}}", true),
        ("{...{a} ...{a:b}}", true),
        // Found because fields are merged first.
        ("{a{x} a{x:y}}", true),
        ("{a{b{x}} a{b{x:y}}}", true),
        ("{a{x} a{y}}", false),
    ] {
        assert_eq!(prepare(text).is_err(), conflict, "{text}");
    }
    let error = invalid("{a(x:1)\n a(x:2)}");
    assert_eq!(error.locations, vec![(1, 2), (2, 2)]);
    // async-graphql makes 60 errors for each of the others, at every level.
    let arguments = many(60, |i| format!("x{i}:1 "));
    let nested = "...on Query{".repeat(20);
    let text = format!("{{{nested}a({arguments}){}{}}}", " a".repeat(1_500), "}".repeat(20));
    let (result, steps) = counted(&text);
    assert_eq!(result.unwrap_err().kind, ErrorKind::Validation);
    assert!(steps < 20_000, "{steps}");
}

#[test]
fn looking_for_conflicts_is_bounded() {
    let deep = |levels: usize, fields: usize| {
        let fields = many(fields, |i| format!("a{i} "));
        let open = "...on Query{".repeat(levels);
        format!("{{{open}{fields}{}}}", "}".repeat(levels))
    };
    assert!(prepare(&deep(7, 1_900)).is_ok());
    assert!(prepare(&deep(29, 500)).is_ok());
    let spreads = many(40, |i| format!("...g{i} "));
    let fragments = many(40, |i| format!("fragment g{i} on Query{{...f}}"));
    let body = many(40, |i| format!("a{i} "));
    let wide = format!("{{{spreads}}}{fragments}fragment f on Query{{{body}}}");
    assert!(prepare(&wide).is_ok());
    let arguments = many(64, |i| format!("x{i}:1 "));
    let same = format!("...on Query{{a({arguments})}}").repeat(24);
    let same = format!("{{{}{same}{}}}", "...on Query{".repeat(25), "}".repeat(25));
    for text in [deep(29, 1_900), same] {
        let (result, steps) = counted(&text);
        assert_eq!(result.unwrap_err().kind, ErrorKind::TooComplex);
        assert!(steps < 2_000 * 16 + 20_000, "{steps}");
    }
}

#[test]
fn what_async_graphql_overlooks_is_refused() {
    invalid("{__typename(a:1)}");
    invalid("{a{__typename{b}}}");
    invalid("query($a:Int @skip(if:$b)){a(b:$a)}");
    // These would panic.
    invalid("query($a:[Nope]=[1]){a(b:$a)}");
    invalid("query($a:[[Nope!]!]! =[]){a(b:$a)}");
    assert!(prepare("query($a:[[Int!]!]! =[[1]]){a(b:$a)}").is_ok());
    assert!(prepare("query($a:Nope=1){a(b:$a)}").is_ok());
    let limits = DocumentLimits { list_default_types: ["Kind".to_owned()].into(), ..DocumentLimits::default() };
    assert!(Document::prepare("query($a:[Kind]=[A]){a(b:$a)}", &limits).is_ok());
}

#[test]
fn an_operation_is_chosen_by_name() {
    let only = prepare("{a}").unwrap();
    assert!(only.operation(None).is_ok());
    assert!(only.operation(Some("")).is_ok());
    assert_eq!(only.operation(Some("A")).unwrap_err().kind, ErrorKind::Operation);
    let named = prepare("mutation A{a}").unwrap();
    let facts = named.operation(None).unwrap();
    assert_eq!((facts.kind, facts.name.as_deref()), (OperationKind::Mutation, Some("A")));
    let two = prepare("query A{a} subscription B{b}").unwrap();
    for (name, found) in [(None, None), (Some(""), None), (Some("C"), None), (Some("B"), Some("b"))] {
        let facts = two.operation(name).ok();
        assert_eq!(facts.and_then(|facts| facts.subscription_field.as_deref()), found);
    }
    assert_eq!(two.operation(None).unwrap_err().kind, ErrorKind::Operation);
    invalid("{a} query A{b}");
    invalid("query A{a} query A{b}");
    assert_eq!(refuse("fragment A on Query{a}").kind, ErrorKind::Operation);
    assert_eq!(refuse("").kind, ErrorKind::Syntax);
    assert_eq!(refuse("type A{a:Int}").kind, ErrorKind::Syntax);
}

#[test]
fn messages_are_short_whatever_the_names() {
    let long = "x".repeat(60_000);
    for text in [
        format!("{{...{long}}} fragment {long} on Q{{...{long}}}"),
        format!("{{a {long}(}}"),
        format!("{{a}} query {long}{{a}}"),
        format!("{{{long}:a {long}:b}}"),
        format!("query($a:[{long}]=[]){{a}}"),
    ] {
        let error = refuse(&text);
        assert!(error.message.len() < 1_024, "{}", error.message.len());
        assert!(!error.to_string().contains('\n'));
    }
    let document = prepare(&format!("query A($v:{long}!){{a}} query B{{a}}")).unwrap();
    assert!(document.operation(Some(&long)).unwrap_err().message.len() < 1_024);
    assert!(document.missing_variables(Some("A"), &Variables::default())[0].message.len() < 1_024);
}

#[test]
fn required_variables_must_be_given() {
    let text = "query($a:Int! $b:Int $c:Int!=1 $d:[Int!]! $e:Boolean!)
        {__typename @include(if:$e) x(a:$a b:$b c:$c d:$d)}";
    let document = prepare(text).unwrap();
    let missing = |json: &str| {
        let errors = document.missing_variables(None, &variables(json));
        let names = errors.iter().map(|error| {
            let name = error.message.split('"').nth(1);
            name.unwrap_or_default().trim_start_matches('$').to_owned()
        });
        names.collect::<String>()
    };
    assert_eq!(missing("{}"), "ade");
    assert_eq!(missing(r#"{"a":1,"b":null,"d":[],"e":true}"#), "");
    assert_eq!(missing(r#"{"a":null,"c":null,"d":null,"e":false}"#), "acd");
    let errors = document.missing_variables(Some("Nope"), &Variables::default());
    assert_eq!(errors[0].kind, ErrorKind::Operation);
    let mut given = variables(r#"{"a":1}"#);
    document.fill_defaults(None, &mut given);
    assert_eq!(given, variables(r#"{"a":1,"c":1}"#));
}

#[test]
fn variables_weigh_as_often_as_they_are_used() {
    let document = prepare(&format!("query($v:String){{a(b:[{}])}}", "$v ".repeat(500))).unwrap();
    let limits = DocumentLimits::default();
    let given = |n: usize| variables(&format!("{{\"v\":\"{}\"}}", "x".repeat(n)));
    assert!(document.check_variables(None, &given(33_000), &limits).is_ok());
    let errors = document.check_variables(None, &given(34_000), &limits).unwrap_err();
    assert_eq!(errors[0].kind, ErrorKind::TooComplex);
    // What is not used is not copied.
    let unused = prepare("{a}").unwrap();
    assert!(unused.check_variables(None, &given(34_000), &limits).is_ok());
}
