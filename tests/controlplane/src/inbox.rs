//! What reaches a running control plane from outside: signals, and lines on standard input.

use std::{
    io::{self, BufRead as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::Duration,
};

use tokio::signal::unix::{SignalKind, signal};

/// Something that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message {
    /// A line on standard input.
    Line(String),
    /// A signal, or the end of standard input: time to go.
    Stop,
}

/// Messages in the order of their arrival.
#[derive(Debug)]
pub(crate) struct Inbox {
    messages: Receiver<Message>,
    stopped: Arc<AtomicBool>,
}

impl Inbox {
    /// Listens from now on to SIGINT, SIGTERM and SIGHUP, and to standard input if told so.
    pub(crate) fn open(read_stdin: bool) -> io::Result<Self> {
        let (sender, messages) = mpsc::channel();
        let stopped = Arc::new(AtomicBool::new(false));
        listen_to_signals(sender.clone(), Arc::clone(&stopped))?;
        if read_stdin {
            let stopped = Arc::clone(&stopped);
            thread::spawn(move || {
                for line in io::stdin().lock().lines().map_while(Result::ok) {
                    // Nobody listens any more when the control plane is on its way down.
                    let _ = sender.send(Message::Line(line));
                }
                stop(&sender, &stopped);
            });
        }
        Ok(Self { messages, stopped })
    }

    /// Whether it is time to go, for those who are busy with something long.
    pub(crate) fn stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The next message, if one arrives in that time.
    pub(crate) fn next(&self, patience: Duration) -> Option<Message> {
        match self.messages.recv_timeout(patience) {
            Ok(message) => Some(message),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Message::Stop),
        }
    }
}

fn listen_to_signals(sender: Sender<Message>, stopped: Arc<AtomicBool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        stop(&sender, &stopped);
    });
    Ok(())
}

fn stop(sender: &Sender<Message>, stopped: &AtomicBool) {
    stopped.store(true, Ordering::Relaxed);
    let _ = sender.send(Message::Stop);
}
