//! A client of any pub-sub server, over its public protocols only: it knows no part of the server in this program.

mod address;
mod backoff;
mod event_stream;
mod failure;
mod remote;
mod tls;
mod web_socket;

pub use address::{Address, encode, query};
pub use backoff::Backoff;
pub use event_stream::{EventStream, StreamItem};
pub use failure::{Answered, ErrorObject, Failure, Refusal};
pub use remote::{Access, Remote};
pub use tls::Trust;
pub use web_socket::{SocketItem, WebSocket};
