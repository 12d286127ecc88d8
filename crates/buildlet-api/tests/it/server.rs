//! A TCP server that reads requests and answers with bytes written down beforehand.

use std::sync::{Arc, Mutex};

use buildlet_api::{Client, Password, TcpConnect};
use ids::MachineId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub struct Server {
    pub client: Client,
    requests: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Plays one connection after the other. Each reads a whole request before each of its answers,
    /// and is closed after the last one.
    pub async fn play(connections: &[&[&str]]) -> Server {
        let script: Vec<Vec<String>> = connections
            .iter()
            .map(|answers| answers.iter().map(|answer| (*answer).to_owned()).collect())
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let task = tokio::spawn(async move {
            for answers in script {
                let (mut stream, _) = listener.accept().await.unwrap();
                for answer in answers {
                    let Some(request) = read_request(&mut stream).await else {
                        break;
                    };
                    seen.lock().unwrap().push(request);
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        let host = MachineId::parse("m1").unwrap();
        let client = Client::new(Arc::new(TcpConnect(address)), host, Password::new("pw"));
        Server {
            client,
            requests,
            task,
        }
    }

    /// The requests that came, after the whole script has been played.
    pub async fn requests(self) -> Vec<String> {
        drop(self.client);
        let played = tokio::time::timeout(std::time::Duration::from_secs(10), self.task).await;
        played.expect("the script was played to its end").unwrap();
        self.requests.lock().unwrap().clone()
    }
}

/// The head and the body as they came, or `None` at the end of the connection.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(head) = text.find("\r\n\r\n") {
            let lower = text[..head].to_ascii_lowercase();
            let length = lower
                .split("content-length: ")
                .nth(1)
                .map(|rest| rest.split("\r\n").next().unwrap().parse::<usize>().unwrap());
            let whole = match length {
                Some(length) => text.len() >= head + 4 + length,
                None if lower.contains("transfer-encoding: chunked") => text.ends_with("0\r\n\r\n"),
                None => true,
            };
            if whole {
                return Some(text);
            }
        }
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(n) => text.push_str(std::str::from_utf8(&buffer[..n]).unwrap()),
        }
    }
}
