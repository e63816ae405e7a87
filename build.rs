//! Puts the pages for browsers into the binary: the console and GraphiQL if `web/` has been built (`make web`), otherwise our
//! own small page in `src/pages/`. It only reads files, so that `cargo build` needs neither Node nor a network. `src/pages.rs`
//! serves what this writes.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
};

/// A page is a document and a folder of files that it loads.
type Sources = [&'static str; 2];

const CONSOLE: Sources = ["web/dist/console.html", "web/dist/console"];
const GRAPHIQL: Sources = ["web/dist/graphql.html", "web/dist/graphql"];
const OWN: Sources = ["src/pages/graphql.html", "src/pages/graphql"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    // The bundler writes the documents last: if they exist, the build is complete.
    let is_built = [CONSOLE, GRAPHIQL].iter().all(|[document, _]| root.join(document).exists());
    // Cargo runs this at every build while a path named here is missing, so each has to exist. While there is no
    // `web/dist`, the folder above changes when it appears.
    let watched = ["web/dist", "web"].into_iter().find(|path| root.join(path).exists());
    for path in watched.into_iter().chain(["build.rs", OWN[0], OWN[1]]) {
        println!("cargo::rerun-if-changed={path}");
    }

    let mut code = format!("/// Whether `web/` was built.\nconst IS_BUILT: bool = {is_built};\n");
    let graphql = page(&root, if is_built { GRAPHIQL } else { OWN })?;
    writeln!(code, "/// The page at `/graphql`.\nstatic GRAPHQL: Page = {graphql};")?;
    let console = if is_built { format!("Some({})", page(&root, CONSOLE)?) } else { "None".to_owned() };
    writeln!(
        code,
        "/// The page at `/`, where there is more than an index.\nstatic CONSOLE: Option<Page> = {console};"
    )?;
    fs::write(Path::new(&env::var("OUT_DIR")?).join("pages.rs"), code)?;
    Ok(())
}

/// A `Page` of `pages.rs`, as code.
fn page(root: &Path, [document, folder]: Sources) -> Result<String, Box<dyn Error>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(root.join(folder))?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension != "gz"));
    paths.sort();
    let mut code = format!("Page {{ document: {}, assets: &[", file(&root.join(document))?);
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).ok_or("a file name that is not UTF-8")?;
        writeln!(code, "    ({name:?}, {}),", file(&path)?)?;
    }
    code.push_str("] }");
    Ok(code)
}

/// A `File` of `pages.rs`, as code.
fn file(path: &Path) -> Result<String, Box<dyn Error>> {
    let content = fs::read(path)?;
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let plain = path.to_str().ok_or("a path that is not UTF-8")?;
    let packed = format!("{plain}.gz");
    let gzip =
        if Path::new(&packed).exists() { format!("Some(include_bytes!({packed:?}))") } else { "None".to_owned() };
    Ok(format!(
        "File {{ kind: {:?}, hash: \"{:016x}\", immutable: {}, content: include_bytes!({plain:?}), gzip: {gzip} }}",
        kind(path)?,
        hasher.finish(),
        has_hashed_name(path),
    ))
}

fn kind(path: &Path) -> Result<&'static str, String> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("css") => Ok("text/css; charset=utf-8"),
        Some("html") => Ok("text/html; charset=utf-8"),
        Some("js") => Ok("text/javascript; charset=utf-8"),
        Some("svg") => Ok("image/svg+xml"),
        Some("ttf") => Ok("font/ttf"),
        Some("txt") => Ok("text/plain; charset=utf-8"),
        Some("woff2") => Ok("font/woff2"),
        _ => Err(format!("{}: no content type is known for it", path.display())),
    }
}

/// Whether the bundler put a hash of the content into the name: `main-PEYNGDAB.js`.
fn has_hashed_name(path: &Path) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let hash = stem.rsplit_once('-').map_or("", |(_, hash)| hash);
    hash.len() == 8 && hash.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
}
