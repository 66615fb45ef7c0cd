//! The dialling side of an RTMP connection: pushing to and pulling from other servers.
//!
//! [`ClientSession`] walks through connect, createStream and publish or play by itself; the caller
//! moves bytes (same contract as the server session) and sends media once
//! [`ClientEvent::Started`] came. A refusal becomes [`Error::Refused`] with the server's words.

use bytes::Bytes;

use super::Error;
use super::amf0::Value;
use super::chunk::Limits;
use super::fourcc::FourCcs;
use super::link::{Incoming, Link};
use super::message::{Body, Command, Data, UserControl, csid, type_id};
use super::server_event::CAPS_RECONNECT;
use super::url::RtmpUrl;

/// What to do at the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Send a stream.
    Publish,
    /// Receive a stream.
    Play,
}

/// What the server did.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientEvent {
    /// Publishing may begin, or playing has begun.
    Started,
    /// Audio of the stream that is played.
    Audio {
        /// Milliseconds, wraps at 2^32.
        timestamp: u32,
        /// FLV audio tag body.
        payload: Bytes,
    },
    /// Video of the stream that is played.
    Video {
        /// Milliseconds, wraps at 2^32.
        timestamp: u32,
        /// FLV video tag body.
        payload: Bytes,
    },
    /// Data of the stream that is played, as in onMetaData.
    Data {
        /// Milliseconds, wraps at 2^32.
        timestamp: u32,
        /// What it says.
        data: Data,
    },
    /// The server asks to connect again, elsewhere if a URL is given (enhanced RTMP). The URL is
    /// the server's wish and has to be checked like any other.
    ReconnectRequest {
        /// Where to.
        tc_url: Option<String>,
    },
    /// The stream that is played is over.
    Ended,
}

/// Transaction ids; we call each command once.
const CONNECT: f64 = 1.0;
const RELEASE_STREAM: f64 = 2.0;
const FC_PUBLISH: f64 = 3.0;
const CREATE_STREAM: f64 = 4.0;
const FC_UNPUBLISH: f64 = 5.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Handshaking,
    Connecting,
    CreatingStream,
    Starting,
    Started,
    Ended,
}

impl State {
    fn stage(self, mode: Mode) -> &'static str {
        match (self, mode) {
            (State::Handshaking | State::Connecting, _) => "connect",
            (State::CreatingStream, _) => "createStream",
            (_, Mode::Publish) => "publish",
            (_, Mode::Play) => "play",
        }
    }
}

/// Outgoing chunk size unless told otherwise, in bytes.
pub const DEFAULT_CHUNK_SIZE: u32 = 60_000;
/// What we call ourselves; servers that look at it at all look for the first part.
const FLASH_VER: &str = "FMLE/3.0 (compatible; patchbay)";
/// How much a player tells the server to send ahead.
const BUFFER_MILLIS: u32 = 1000;

/// The state machine of one dialled connection.
#[derive(Debug)]
pub struct ClientSession {
    url: RtmpUrl,
    mode: Mode,
    chunk_size: u32,
    link: Link,
    state: State,
    stream_id: u32,
    announced: FourCcs,
}

impl ClientSession {
    /// A session for a connection that has just been made; `take_output` has bytes at once.
    /// `seed` fills the handshake.
    pub fn new(url: RtmpUrl, mode: Mode, chunk_size: u32, seed: u64) -> Self {
        // Who is dialled is chosen by the operator, so a played stream may be as large as any; a
        // server that we push to has no reason to send much.
        let limits = match mode {
            Mode::Play => Limits::ACCEPTED,
            Mode::Publish => Limits::STRANGER,
        };
        let link = Link::client(seed, limits);
        Self { url, mode, chunk_size, link, state: State::Handshaking, stream_id: 0, announced: FourCcs::default() }
    }

    /// Takes bytes from the socket.
    pub fn receive(&mut self, bytes: Bytes) {
        self.link.receive(bytes);
    }

    /// What to write to the socket; empty when there is nothing.
    pub fn take_output(&mut self) -> Bytes {
        self.link.take_output()
    }

    /// Bytes that wait to be written. Whoever sends media bounds this.
    pub fn pending_output(&self) -> usize {
        self.link.pending_output()
    }

    /// True between [`ClientEvent::Started`] and the end.
    pub fn is_started(&self) -> bool {
        self.state == State::Started
    }

    /// The message stream id that media is sent on, once started.
    pub fn stream_id(&self) -> u32 {
        self.stream_id
    }

    /// The chunk size that media for this server must be encoded with, once started.
    pub fn chunk_size(&self) -> u32 {
        self.link.chunk_size()
    }

    /// The codecs that the server says it takes, once started.
    pub fn announced(&self) -> &FourCcs {
        &self.announced
    }

    /// The next event, or `None` when more input is needed.
    pub fn poll(&mut self) -> Result<Option<ClientEvent>, Error> {
        loop {
            let incoming = self.link.next()?;
            if self.state == State::Handshaking && self.link.is_open() {
                self.connect();
            }
            let Some(incoming) = incoming else { return Ok(None) };
            if let Some(event) = self.handle(incoming)? {
                return Ok(Some(event));
            }
        }
    }

    /// Queues an FLV audio tag body.
    pub fn send_audio(&mut self, timestamp: u32, payload: &[u8]) -> Result<(), Error> {
        self.send_media(csid::AUDIO, timestamp, type_id::AUDIO, payload)
    }

    /// Queues an FLV video tag body.
    pub fn send_video(&mut self, timestamp: u32, payload: &[u8]) -> Result<(), Error> {
        self.send_media(csid::VIDEO, timestamp, type_id::VIDEO, payload)
    }

    /// Queues onMetaData with the given properties.
    pub fn send_metadata(&mut self, metadata: Value) -> Result<(), Error> {
        let values = vec![Value::string("onMetaData"), metadata];
        let data = Body::Data(Data { name: "@setDataFrame".into(), values });
        let (type_id, payload) = data.encode();
        self.send_media(csid::STREAM, 0, type_id, &payload)
    }

    /// Queues the farewell; close the connection when it is written.
    pub fn finish(&mut self) {
        if !matches!(self.state, State::Starting | State::Started) {
            return;
        }
        if self.mode == Mode::Publish {
            let name = Value::string(&*self.url.stream);
            self.link.command(0, Command::new("FCUnpublish", FC_UNPUBLISH, vec![name]));
        }
        let id = Value::Number(f64::from(self.stream_id));
        self.link.command(0, Command::new("deleteStream", 0.0, vec![id]));
        self.state = State::Ended;
    }

    fn send_media(&mut self, csid: u32, timestamp: u32, type_id: u8, payload: &[u8]) -> Result<(), Error> {
        if self.state != State::Started || self.mode != Mode::Publish {
            return Err(Error::NotReady);
        }
        self.link.send_raw(csid, timestamp, type_id, self.stream_id, payload);
        Ok(())
    }

    fn connect(&mut self) {
        self.state = State::Connecting;
        self.link.set_chunk_size(self.chunk_size);
        let mut command = Command::new("connect", CONNECT, vec![]);
        let mut properties = vec![
            ("app", Value::string(&*self.url.app)),
            ("flashVer", Value::string(FLASH_VER)),
            ("tcUrl", Value::string(&*self.url.tc_url)),
            FourCcs::carried(),
            ("capsEx", Value::Number(f64::from(CAPS_RECONNECT))),
        ];
        match self.mode {
            Mode::Publish => properties.push(("type", Value::string("nonprivate"))),
            Mode::Play => properties.extend([
                ("fpad", Value::Boolean(false)),
                ("capabilities", Value::Number(15.0)),
                ("audioCodecs", Value::Number(4071.0)),
                ("videoCodecs", Value::Number(252.0)),
                ("videoFunction", Value::Number(1.0)),
            ]),
        }
        command.object = Value::object(properties);
        self.link.command(0, command);
    }

    fn handle(&mut self, incoming: Incoming) -> Result<Option<ClientEvent>, Error> {
        let Incoming { timestamp, body, .. } = incoming;
        let playing = self.state == State::Started && self.mode == Mode::Play;
        Ok(match body {
            Body::Command(command) => self.command(command)?,
            Body::Audio(payload) if playing => Some(ClientEvent::Audio { timestamp, payload }),
            Body::Video(payload) if playing => Some(ClientEvent::Video { timestamp, payload }),
            Body::Data(data) if playing => Some(ClientEvent::Data { timestamp, data }),
            Body::UserControl(UserControl::StreamEof(_)) if playing => Some(self.end()),
            _ => None,
        })
    }

    fn command(&mut self, command: Command) -> Result<Option<ClientEvent>, Error> {
        match &*command.name {
            "_result" if command.transaction == CONNECT && self.state == State::Connecting => {
                // It belongs into the second object; not every server knows.
                let answer = command.args.first().map(FourCcs::read).filter(|said| !said.is_empty());
                self.announced = answer.unwrap_or_else(|| FourCcs::read(&command.object));
                self.create_stream();
            }
            "_result" if command.transaction == CREATE_STREAM && self.state == State::CreatingStream => {
                self.start(&command)?;
            }
            // The answers to releaseStream and FCPublish matter to nobody: many servers refuse
            // them and then take the stream.
            "_error" if [CONNECT, CREATE_STREAM].contains(&command.transaction) => {
                return Err(self.refused(&command));
            }
            "onStatus" => return self.on_status(&command),
            "close" if self.state != State::Ended => return Err(self.refused(&command)),
            _ => {}
        }
        Ok(None)
    }

    fn create_stream(&mut self) {
        self.state = State::CreatingStream;
        if self.mode == Mode::Publish {
            let name = Value::string(&*self.url.stream);
            for (call, transaction) in [("releaseStream", RELEASE_STREAM), ("FCPublish", FC_PUBLISH)] {
                self.link.command(0, Command::new(call, transaction, vec![name.clone()]));
            }
        } else {
            // Servers send Acks only to those who ask; players are also asked for a window.
            self.link.control(&Body::WindowAckSize(2_500_000));
        }
        self.link.command(0, Command::new("createStream", CREATE_STREAM, vec![]));
    }

    fn start(&mut self, result: &Command) -> Result<(), Error> {
        let id = result.number_arg(0).filter(|id| (1.0..=f64::from(u32::MAX)).contains(id));
        let missing = Error::MissingArgument { command: "createStream", argument: "stream id" };
        self.stream_id = id.ok_or(missing)? as u32;
        self.state = State::Starting;
        let name = Value::string(&*self.url.stream);
        let command = match self.mode {
            Mode::Publish => Command::new("publish", 0.0, vec![name, Value::string("live")]),
            // -2: live, or recorded if there is no live one; what every server understands.
            Mode::Play => Command::new("play", 0.0, vec![name, Value::Number(-2.0)]),
        };
        self.link.command(self.stream_id, command);
        if self.mode == Mode::Play {
            let (stream_id, millis) = (self.stream_id, BUFFER_MILLIS);
            let event = UserControl::SetBufferLength { stream_id, millis };
            self.link.control(&Body::UserControl(event));
        }
        Ok(())
    }

    fn on_status(&mut self, command: &Command) -> Result<Option<ClientEvent>, Error> {
        let info = command.args.first();
        let field = |key| info.and_then(|i| i.get(key)).and_then(Value::as_str).unwrap_or_default();
        match field("code") {
            "NetStream.Publish.Start" | "NetStream.Play.Start" if self.state == State::Starting => {
                self.state = State::Started;
                return Ok(Some(ClientEvent::Started));
            }
            "NetConnection.Connect.ReconnectRequest" => {
                let tc_url = Some(field("tcUrl")).filter(|url| !url.is_empty()).map(str::to_owned);
                return Ok(Some(ClientEvent::ReconnectRequest { tc_url }));
            }
            "NetStream.Play.UnpublishNotify" | "NetStream.Play.Stop" | "NetStream.Play.Complete" if self.state == State::Started => {
                return Ok(Some(self.end()));
            }
            _ => {}
        }
        if field("level") == "error" && self.state != State::Ended {
            return Err(self.refused(command));
        }
        Ok(None)
    }

    fn end(&mut self) -> ClientEvent {
        self.state = State::Ended;
        ClientEvent::Ended
    }

    fn refused(&self, command: &Command) -> Error {
        let info = command.args.first();
        let field = |key| info.and_then(|i| i.get(key)).and_then(Value::as_str).unwrap_or_default();
        Error::Refused { stage: self.state.stage(self.mode), code: field("code").to_owned(), description: field("description").to_owned() }
    }
}
