//! What the two protocols call their messages.

/// The names of a protocol's messages.
pub struct Names {
    pub subscribe: &'static str,
    pub next: &'static str,
    pub complete: &'static str,
    pub stop: &'static str,
    pub legacy: bool,
}

pub const MODERN: Names =
    Names { subscribe: "subscribe", next: "next", complete: "complete", stop: "complete", legacy: false };
pub const LEGACY: Names = Names { subscribe: "start", next: "data", complete: "complete", stop: "stop", legacy: true };
