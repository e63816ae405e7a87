//! What cleans up after the servers, however the test's process ends.

use std::{
    io::Write as _,
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
};

/// A shell that outlives this process by a moment, kills the servers that are left, and wipes the directory.
#[derive(Clone)]
pub struct Watch(Arc<Mutex<Watching>>);

struct Watching {
    shell: Child,
    /// What the shell reads; it acts when this closes, which the kernel does if nobody else can.
    tell: Option<ChildStdin>,
    running: Vec<(u16, u32)>,
}

impl Watch {
    pub fn over(directory: &Path) -> Self {
        let script = "trap '' INT TERM HUP; pids=; while read -r line; do pids=$line; done
            [ -z \"$pids\" ] || kill -9 $pids; rm -rf \"$0\"";
        let mut command = Command::new("sh");
        command.arg("-c").arg(script).arg(directory);
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let tell = shell.stdin.take();
        Self(Arc::new(Mutex::new(Watching { shell, tell, running: Vec::new() })))
    }

    /// The process of the server at this port, by which it is known here.
    pub fn runs(&self, port: u16, process: Option<u32>) {
        let mut watching = self.0.lock().unwrap();
        watching.running.retain(|(at, _)| *at != port);
        watching.running.extend(process.map(|process| (port, process)));
        let ids: Vec<_> = watching.running.iter().map(|(_, process)| process.to_string()).collect();
        let _ = writeln!(watching.tell.as_mut().unwrap(), "{}", ids.join(" "));
    }

    /// Nothing runs any more: only the directory is left to go.
    pub fn wipe(&self) {
        let mut watching = self.0.lock().unwrap();
        watching.tell = None;
        let _ = watching.shell.wait();
    }
}
