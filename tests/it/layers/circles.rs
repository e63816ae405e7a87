//! No circles between files: which file names what of which other one, also through what a parent passes on.

use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Circles that are known. What is left of one when a file leaves it is known, too.
const KNOWN: [&[&str]; 6] = [
    &["channel/error", "channel/name"],
    &["config", "server"],
    &["engine/disk/log/gather", "engine/disk/log/ids", "engine/disk/log/recover"],
    &["engine/disk/log/frame", "engine/disk/log/record"],
    &["graphql/http", "graphql/single", "graphql/stream", "graphql/ws"],
    &["rest/consumers", "rest/messages", "rest/openapi", "rest/publish", "rest/status", "rest/topics"],
];

type Path = Vec<String>;

/// The modules of the crate, each in its file.
struct Crate {
    /// What each names, as written.
    named: BTreeMap<Path, Vec<Path>>,
    /// What each has under a name that stands elsewhere.
    imported: HashMap<(Path, String), Path>,
}

fn words(text: &str) -> Path {
    text.split("::").map(|word| word.trim().to_owned()).filter(|word| !word.is_empty()).collect()
}

/// The paths of a `use`, with the name that each gets.
fn expand(tree: &str, before: &[String], found: &mut Vec<(Path, String)>) {
    let tree = tree.trim();
    if let Some((prefix, list)) = tree.split_once('{') {
        let prefix = [before, &words(prefix)].concat();
        let list = list.rsplit_once('}').unwrap().0;
        let (mut depth, mut start) = (0, 0);
        for (at, c) in list.char_indices().chain([(list.len(), ',')]) {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !list[start..at].trim().is_empty() {
                        expand(&list[start..at], &prefix, found);
                    }
                    start = at + 1;
                }
                _ => {}
            }
        }
        return;
    }
    let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut path = [before, &words(path)].concat();
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let name = if alias.is_empty() { path.last().cloned().unwrap_or_default() } else { alias.trim().to_owned() };
    found.push((path, name));
}

impl Crate {
    fn read(sources: &[(String, String, String)]) -> Self {
        let mut all = Self { named: BTreeMap::new(), imported: HashMap::new() };
        for (name, _, code) in sources.iter().filter(|(name, ..)| name != "main.rs" && !name.contains("tests")) {
            let file = name.strip_suffix(".rs").unwrap();
            let module: Path = file.split('/').filter(|part| *part != "lib").map(str::to_owned).collect();
            let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let (mut named, mut rest) = (Vec::new(), String::new());
            for statement in code.split_inclusive(';') {
                let line = statement.rfind("\nuse ").or(statement.rfind("\npub use ")).or(statement.rfind(") use "));
                let Some(at) = line else {
                    rest.push_str(statement);
                    continue;
                };
                let tree = statement[at..].split_once("use ").unwrap().1.trim_end_matches(';');
                let mut paths = Vec::new();
                expand(tree, &[], &mut paths);
                for (path, alias) in paths {
                    all.imported.insert((module.clone(), alias), path.clone());
                    named.push(path);
                }
            }
            for start in ["crate::", "super::"] {
                for (at, _) in rest.match_indices(start).filter(|(at, _)| !rest[..*at].ends_with(['$', ':', '_'])) {
                    let path = rest[at..].split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next();
                    named.push(words(path.unwrap()));
                }
            }
            all.named.insert(module, named);
        }
        all
    }

    /// The file in which stands what `path` names in `module`; `None` for what is of another crate or cannot be followed.
    fn resolve(&self, module: &[String], path: &[String], depth: usize) -> Option<Path> {
        let mut at = module.to_vec();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => (at, rest) = (Vec::new(), &rest[1..]),
            "super" | "self" => {
                while let Some(first) = rest.first().filter(|first| *first == "super" || *first == "self") {
                    if first == "super" {
                        at.pop();
                    }
                    rest = &rest[1..];
                }
            }
            first => {
                at.push(first.to_owned());
                if !self.named.contains_key(&at) {
                    return None;
                }
                rest = &rest[1..];
            }
        }
        while let Some((first, others)) = rest.split_first() {
            at.push(first.clone());
            if self.named.contains_key(&at) {
                rest = others;
                continue;
            }
            at.pop();
            if let Some(further) = self.imported.get(&(at.clone(), first.clone())).filter(|_| depth < 8) {
                return self.resolve(&at, further, depth + 1).or(Some(at));
            }
            break;
        }
        Some(at)
    }

    /// Which files each needs. A file and those beneath it are one room, in which it names them and they name it.
    fn needs(&self) -> BTreeMap<&Path, BTreeSet<Path>> {
        let needs = |(module, named): (&Path, &Vec<Path>)| {
            let files = named.iter().filter_map(|path| self.resolve(module, path, 0));
            files.filter(|file| !file.starts_with(module) && !module.starts_with(file)).collect()
        };
        self.named.iter().map(|entry| (entry.0, needs(entry))).collect()
    }
}

/// The files that `from` needs, one by way of the other.
fn reached<'a>(needs: &'a BTreeMap<&Path, BTreeSet<Path>>, from: &Path) -> BTreeSet<&'a Path> {
    let mut found = BTreeSet::new();
    let mut next: Vec<&Path> = needs[from].iter().collect();
    while let Some(file) = next.pop() {
        if found.insert(file) {
            next.extend(&needs[file]);
        }
    }
    found
}

#[test]
fn files_need_each_other_in_no_circle() {
    let modules = Crate::read(&super::sources());
    let needs = modules.needs();
    assert!(needs.values().map(BTreeSet::len).sum::<usize>() > 300, "the imports were not found");
    for file in needs.keys().copied() {
        let circle: BTreeSet<_> =
            reached(&needs, file).into_iter().filter(|other| reached(&needs, other).contains(file)).collect();
        let circle: Vec<_> = circle.iter().map(|file| file.join("/")).collect();
        let is_known = KNOWN.iter().any(|known| circle.iter().all(|file| known.contains(&file.as_str())));
        assert!(is_known, "these files need each other: {circle:?}");
    }
}

#[test]
fn circles_are_found() {
    let file = |name: &str, code: &str| (name.to_owned(), String::new(), code.to_owned());
    let sources = [
        file("a.rs", "\nmod b;\nmod c;\n\npub use b::{B, x::Y as Z};\n"),
        file("a/b.rs", "\nuse super::{\n    c::{self, C},\n    A,\n};\n"),
        file("a/c.rs", "\nfn f() { super::B::new(); std::mem::take(); }\n"),
    ];
    let modules = Crate::read(&sources);
    let path = |text: &str| -> Path { text.split('/').map(str::to_owned).collect() };
    let needs = modules.needs();
    assert_eq!(needs[&path("a/b")], BTreeSet::from([path("a/c")]));
    assert_eq!(needs[&path("a/c")], BTreeSet::from([path("a/b")]));
    assert!(needs[&path("a")].is_empty(), "what is beneath a file is its own");
    assert!(reached(&needs, &path("a/c")).contains(&path("a/c")));
}
