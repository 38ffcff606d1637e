//! The network between a process and the server, which can be cut at a chosen moment.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Where the connection is cut that sends the text it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The server never hears it.
    Before,
    /// The server hears it; the client hears nothing any more.
    Behind,
    /// The server hears it and answers; the client does not hear the answer.
    AfterTheAnswer,
}

/// What to wait for, and what to do then.
type Armed = Mutex<Option<(Cut, &'static [u8])>>;

/// Passes bytes on, until it is told otherwise.
pub struct Proxy {
    pub address: String,
    armed: Arc<Armed>,
    down: watch::Sender<bool>,
    cuts: watch::Sender<usize>,
}

impl Proxy {
    /// In front of `server`.
    pub async fn start(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap().to_string(),
            armed: Arc::default(),
            down: watch::Sender::new(false),
            cuts: watch::Sender::new(0),
        };
        let (armed, down, cuts) = (Arc::clone(&proxy.armed), proxy.down.clone(), proxy.cuts.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if *down.borrow() {
                    continue;
                }
                let server = TcpStream::connect(&server).await.unwrap();
                let (armed, mut down, cuts) = (Arc::clone(&armed), down.subscribe(), cuts.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        _ = down.wait_for(|down| *down) => {}
                        () = pass(client, server, &armed, &cuts) => {}
                    }
                });
            }
        });
        proxy
    }

    /// Cuts the next connection that sends `text`.
    pub fn cut(&self, cut: Cut, text: &'static [u8]) {
        *self.armed.lock().unwrap() = Some((cut, text));
    }

    /// Waits until that has happened.
    pub async fn is_cut(&self) {
        self.cuts.subscribe().wait_for(|cuts| *cuts > 0).await.unwrap();
    }

    /// Cuts all connections and refuses new ones.
    pub fn take_down(&self) {
        self.down.send_replace(true);
    }

    pub fn bring_up(&self) {
        self.down.send_replace(false);
    }
}

/// Until one side closes, or the connection is cut.
async fn pass(client: TcpStream, server: TcpStream, armed: &Armed, cuts: &watch::Sender<usize>) {
    let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
        (client.into_split(), server.into_split());
    let cut = tokio::select! {
        cut = watched(&mut from_client, &mut to_server, armed) => cut,
        () = answers(&mut from_server, &mut to_client) => None,
    };
    let Some(cut) = cut else { return };
    drop((from_client, to_client));
    if cut == Cut::AfterTheAnswer {
        // What follows the end of a transaction is "ready for query", five bytes, the last of an answer.
        let mut answer = Vec::new();
        while !answer.ends_with(b"Z\0\0\0\x05I") {
            if from_server.read_buf(&mut answer).await.unwrap() == 0 {
                break;
            }
        }
    }
    cuts.send_modify(|cuts| *cuts += 1);
}

async fn watched(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, armed: &Armed) -> Option<Cut> {
    let mut sent = Vec::with_capacity(1 << 16);
    loop {
        sent.clear();
        if from.read_buf(&mut sent).await.unwrap_or(0) == 0 {
            return None;
        }
        let cut = armed
            .lock()
            .unwrap()
            .take_if(|(_, text)| sent.windows(text.len()).any(|window| window == *text))
            .map(|(cut, _)| cut);
        if cut == Some(Cut::Before) {
            return cut;
        }
        to.write_all(&sent).await.ok()?;
        if cut.is_some() {
            return cut;
        }
    }
}

async fn answers(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) {
    // Ends with either side.
    let _ = tokio::io::copy(from, to).await;
}
