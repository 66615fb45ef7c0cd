//! The accepting side of an RTMP connection: for publishers and players that come to us.
//!
//! [`ServerSession`] turns bytes into [`Event`]s and decisions into bytes. It answers everything
//! that needs no decision itself (createStream, releaseStream, FCPublish, pings, acks). Contract:
//!
//! 1. `receive` bytes from the socket,
//! 2. `poll` until it gives `None`, and act on each event,
//! 3. write what `take_output` gives, before reading on. A peer that does not read is thereby not
//!    read from either, which is what bounds memory.
//!
//! A [`Event::Connect`], [`Event::Publish`] or [`Event::Play`] waits for [`ServerSession::accept`]
//! or [`ServerSession::reject`]; until then `poll` gives `None` and later input stays where it is.

use bytes::Bytes;

use super::Error;
use super::amf0::Value;
use super::chunk::Limits;
use super::fourcc::FourCcs;
use super::link::{Incoming, Link};
use super::message::{Body, Command, Data, UserControl, csid};
pub use super::server_event::{CAPS_RECONNECT, Connect, Event, PublishKind, Refusal, StreamName};
use super::url::split_query;

/// What the server tells and allows its peers.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Outgoing chunk size in bytes. Whoever encodes media for this peer must use the same.
    pub chunk_size: u32,
    /// The peer acknowledges after so many bytes, and may send so many unacknowledged.
    pub window: u32,
    /// Limits before a publisher is accepted, and for players always.
    pub stranger: Limits,
    /// Limits once a publisher is accepted.
    pub publisher: Limits,
    /// Most streams at a time on one connection.
    pub streams: usize,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self { chunk_size: 60_000, window: 2_500_000, stranger: Limits::STRANGER, publisher: Limits::ACCEPTED, streams: 4 }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Publishing,
    Playing,
}

#[derive(Debug, Clone, Copy)]
enum Pending {
    Connect { transaction: f64, enhanced: bool },
    Publish { stream_id: u32 },
    Play { stream_id: u32 },
}

/// The state machine of one accepted connection.
#[derive(Debug)]
pub struct ServerSession {
    config: ServerConfig,
    link: Link,
    connected: bool,
    /// The peer obeys a request to connect again.
    reconnects: bool,
    pending: Option<Pending>,
    /// Streams the peer has created: few, so a list.
    streams: Vec<(u32, State)>,
}

impl ServerSession {
    /// A session for a connection that has just been accepted. `seed` fills the handshake.
    pub fn new(config: ServerConfig, seed: u64) -> Self {
        let link = Link::server(seed, config.stranger);
        Self { config, link, connected: false, reconnects: false, pending: None, streams: Vec::new() }
    }

    /// Takes bytes from the socket.
    pub fn receive(&mut self, bytes: Bytes) {
        self.link.receive(bytes);
    }

    /// What to write to the socket; empty when there is nothing.
    pub fn take_output(&mut self) -> Bytes {
        self.link.take_output()
    }

    /// The chunk size that media for this peer must be encoded with.
    pub fn chunk_size(&self) -> u32 {
        self.link.chunk_size()
    }

    /// The next event, or `None` when more input or a decision is needed.
    pub fn poll(&mut self) -> Result<Option<Event>, Error> {
        while self.pending.is_none() {
            let Some(incoming) = self.link.next()? else { break };
            if let Some(event) = self.handle(incoming)? {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Says yes to the request that waits. A player is told that its stream starts; metadata and
    /// media may follow at once.
    pub fn accept(&mut self) -> Result<(), Error> {
        match self.pending.take().ok_or(Error::NothingPending)? {
            Pending::Connect { transaction, enhanced } => {
                self.accept_connect(transaction, enhanced);
            }
            Pending::Publish { stream_id } => {
                self.set_state(stream_id, State::Publishing);
                self.link.set_limits(self.config.publisher);
                self.link.control(&Body::UserControl(UserControl::StreamBegin(stream_id)));
                self.status(stream_id, "NetStream.Publish.Start", "Publishing.");
            }
            Pending::Play { stream_id } => {
                self.set_state(stream_id, State::Playing);
                self.link.control(&Body::UserControl(UserControl::StreamBegin(stream_id)));
                self.status(stream_id, "NetStream.Play.Reset", "Playing and resetting.");
                self.status(stream_id, "NetStream.Play.Start", "Playing.");
                let values = vec![Value::Boolean(true), Value::Boolean(true)];
                self.send_data(stream_id, 0, Data { name: "|RtmpSampleAccess".into(), values });
            }
        }
        Ok(())
    }

    /// Says no to the request that waits. `description` is what the user may read.
    pub fn reject(&mut self, refusal: Refusal, description: &str) -> Result<(), Error> {
        match self.pending.take().ok_or(Error::NothingPending)? {
            Pending::Connect { transaction, .. } => {
                let code = match refusal {
                    Refusal::NotFound => "NetConnection.Connect.InvalidApp",
                    Refusal::Failed => "NetConnection.Connect.Failed",
                    Refusal::Denied | Refusal::Busy => "NetConnection.Connect.Rejected",
                };
                self.answer("_error", transaction, vec![status("error", code, description)]);
            }
            Pending::Publish { stream_id } => {
                let code = match refusal {
                    Refusal::Denied => "NetStream.Publish.Denied",
                    Refusal::Failed => "NetStream.Publish.Failed",
                    Refusal::NotFound | Refusal::Busy => "NetStream.Publish.BadName",
                };
                self.on_status(stream_id, status("error", code, description));
            }
            Pending::Play { stream_id } => {
                let code = match refusal {
                    Refusal::Denied | Refusal::Failed => "NetStream.Play.Failed",
                    Refusal::NotFound | Refusal::Busy => "NetStream.Play.StreamNotFound",
                };
                self.on_status(stream_id, status("error", code, description));
            }
        }
        Ok(())
    }

    /// Sends a data message, as in onMetaData, to a player.
    pub fn send_data(&mut self, stream_id: u32, timestamp: u32, data: Data) {
        self.link.send(csid::STREAM, timestamp, stream_id, &Body::Data(data));
    }

    /// Tells a player that its stream is over.
    pub fn end_play(&mut self, stream_id: u32, description: &str) {
        self.link.control(&Body::UserControl(UserControl::StreamEof(stream_id)));
        self.status(stream_id, "NetStream.Play.UnpublishNotify", description);
        self.set_state(stream_id, State::Idle);
    }

    /// Tells a publisher that we end its stream, and why.
    pub fn end_publish(&mut self, stream_id: u32, description: &str) {
        let info = status("error", "NetStream.Publish.Denied", description);
        self.on_status(stream_id, info);
        self.set_state(stream_id, State::Idle);
    }

    /// Asks the peer to connect again, to `tc_url` if there is one, and to go on as before until it does; `false` when it
    /// never said that it would obey.
    pub fn request_reconnect(&mut self, tc_url: Option<&str>, description: &str) -> bool {
        if self.reconnects {
            let mut info = status("status", "NetConnection.Connect.ReconnectRequest", description);
            if let (Value::Object(info), Some(tc_url)) = (&mut info, tc_url) {
                info.push(("tcUrl".into(), Value::string(tc_url)));
            }
            self.on_status(0, info);
        }
        self.reconnects
    }

    /// Asks the peer whether it is there; it answers with [`Event::Pong`] of the same value.
    pub fn ping(&mut self, value: u32) {
        self.link.control(&Body::UserControl(UserControl::PingRequest(value)));
    }

    fn handle(&mut self, incoming: Incoming) -> Result<Option<Event>, Error> {
        let Incoming { stream_id, timestamp, body } = incoming;
        let publishing = self.state(stream_id) == Some(State::Publishing);
        Ok(match body {
            Body::Command(command) => self.command(stream_id, command)?,
            // Media on a stream that was never let in, or no longer is, goes nowhere.
            Body::Audio(payload) if publishing => Some(Event::Audio { stream_id, timestamp, payload }),
            Body::Video(payload) if publishing => Some(Event::Video { stream_id, timestamp, payload }),
            Body::Data(data) if publishing => Some(Event::Data { stream_id, timestamp, data }),
            Body::UserControl(UserControl::SetBufferLength { stream_id, millis }) => Some(Event::BufferLength { stream_id, millis }),
            Body::UserControl(UserControl::PingResponse(value)) => Some(Event::Pong(value)),
            _ => None,
        })
    }

    fn command(&mut self, stream_id: u32, command: Command) -> Result<Option<Event>, Error> {
        let transaction = command.transaction;
        if !self.connected && command.name != "connect" {
            return match &*command.name {
                "createStream" | "publish" | "play" => Err(Error::UnexpectedCommand { command: "any", state: "before connect" }),
                _ => Ok(None),
            };
        }
        let flag = || matches!(command.args.first(), Some(Value::Boolean(true)));
        Ok(match &*command.name {
            "connect" => Some(self.connect(&command)?),
            "createStream" => {
                self.create_stream(transaction);
                None
            }
            "publish" => Some(self.publish(stream_id, &command)?),
            "play" => Some(self.play(stream_id, &command)?),
            "deleteStream" => self.delete_stream(command.number_arg(0)),
            "closeStream" => self.close(stream_id),
            "pause" => {
                let paused = flag();
                let code = if paused { "NetStream.Pause.Notify" } else { "NetStream.Unpause.Notify" };
                self.status(stream_id, code, "Done.");
                Some(Event::Pause { stream_id, paused })
            }
            "receiveAudio" => Some(Event::Receive { stream_id, video: false, wanted: flag() }),
            "receiveVideo" => Some(Event::Receive { stream_id, video: true, wanted: flag() }),
            // Live streams have no length and cannot be sought in.
            "getStreamLength" => {
                self.answer("_result", transaction, vec![Value::Number(0.0)]);
                None
            }
            "releaseStream" | "FCPublish" | "FCUnpublish" | "FCSubscribe" | "_checkbw" => {
                self.answer("_result", transaction, vec![Value::Undefined]);
                None
            }
            "_result" | "_error" | "onStatus" => None,
            _ => {
                let info = status("error", "NetConnection.Call.Failed", "Unknown command.");
                self.answer("_error", transaction, vec![info]);
                None
            }
        })
    }

    fn connect(&mut self, command: &Command) -> Result<Event, Error> {
        if self.connected {
            return Err(Error::UnexpectedCommand { command: "connect", state: "twice" });
        }
        let text = |key| command.object.get(key).and_then(Value::as_str).unwrap_or_default();
        let (app, mut query) = split_query(text("app"));
        let tc_url = text("tcUrl");
        if query.is_empty() {
            query = split_query(tc_url).1;
        }
        let fourccs = FourCcs::read(&command.object);
        let caps_ex = command.object.get("capsEx").and_then(Value::as_number).unwrap_or(0.0) as u32;
        self.reconnects = caps_ex & CAPS_RECONNECT != 0;
        let enhanced = !fourccs.is_empty();
        self.pending = Some(Pending::Connect { transaction: command.transaction, enhanced });
        Ok(Event::Connect(Connect {
            app: app.trim_matches('/').to_owned(),
            query: query.to_owned(),
            tc_url: tc_url.to_owned(),
            flash_ver: text("flashVer").to_owned(),
            page_url: text("pageUrl").to_owned(),
            fourccs,
            caps_ex,
        }))
    }

    fn accept_connect(&mut self, transaction: f64, enhanced: bool) {
        self.connected = true;
        self.link.control(&Body::WindowAckSize(self.config.window));
        self.link.control(&Body::SetPeerBandwidth { size: self.config.window, limit: 2 });
        self.link.set_chunk_size(self.config.chunk_size);
        let properties = Value::object([("fmsVer", Value::string("FMS/3,0,1,123")), ("capabilities", Value::Number(31.0))]);
        let mut info = status("status", "NetConnection.Connect.Success", "Connection succeeded.");
        if let Value::Object(info) = &mut info {
            info.push(("objectEncoding".into(), Value::Number(0.0)));
            if enhanced {
                let (key, list) = FourCcs::carried();
                info.push((key.into(), list));
            }
        }
        let mut answer = Command::new("_result", transaction, vec![info]);
        answer.object = properties;
        self.link.command(0, answer);
    }

    fn create_stream(&mut self, transaction: f64) {
        if self.streams.len() >= self.config.streams {
            let info = status("error", "NetConnection.Call.Failed", "Too many streams.");
            self.answer("_error", transaction, vec![info]);
            return;
        }
        // One more candidate than streams in use: one is free.
        let free = (1..).find(|id| self.state(*id).is_none()).unwrap_or(1);
        self.streams.push((free, State::Idle));
        self.answer("_result", transaction, vec![Value::Number(f64::from(free))]);
    }

    fn publish(&mut self, stream_id: u32, command: &Command) -> Result<Event, Error> {
        let stream = self.stream_name(stream_id, "publish", command)?;
        let kind = match command.str_arg(1) {
            Some("record") => PublishKind::Record,
            Some("append") => PublishKind::Append,
            _ => PublishKind::Live,
        };
        self.pending = Some(Pending::Publish { stream_id });
        Ok(Event::Publish { stream, kind })
    }

    fn play(&mut self, stream_id: u32, command: &Command) -> Result<Event, Error> {
        let stream = self.stream_name(stream_id, "play", command)?;
        let start = command.number_arg(1).unwrap_or(-2.0);
        self.pending = Some(Pending::Play { stream_id });
        Ok(Event::Play { stream, start })
    }

    fn stream_name(&self, stream_id: u32, name: &'static str, command: &Command) -> Result<StreamName, Error> {
        match self.state(stream_id) {
            Some(State::Idle) => {}
            Some(_) => return Err(unexpected(name, "on a stream in use")),
            None => return Err(unexpected(name, "on a stream that was not created")),
        }
        let argument = command.str_arg(0);
        let argument = argument.ok_or(Error::MissingArgument { command: name, argument: "name" })?;
        let (name, query) = split_query(argument);
        let name = name.trim_start_matches('/').to_owned();
        Ok(StreamName { stream_id, name, query: query.to_owned() })
    }

    fn delete_stream(&mut self, id: Option<f64>) -> Option<Event> {
        let index = self.streams.iter().position(|(known, _)| Some(f64::from(*known)) == id)?;
        let (stream_id, state) = self.streams.remove(index);
        (state != State::Idle).then_some(Event::Closed { stream_id })
    }

    fn close(&mut self, stream_id: u32) -> Option<Event> {
        let active = matches!(self.state(stream_id), Some(State::Publishing | State::Playing));
        self.set_state(stream_id, State::Idle);
        active.then_some(Event::Closed { stream_id })
    }

    fn state(&self, stream_id: u32) -> Option<State> {
        self.streams.iter().find(|(id, _)| *id == stream_id).map(|(_, state)| *state)
    }

    fn set_state(&mut self, stream_id: u32, state: State) {
        if let Some(stream) = self.streams.iter_mut().find(|(id, _)| *id == stream_id) {
            stream.1 = state;
        }
    }

    fn answer(&mut self, name: &str, transaction: f64, args: Vec<Value>) {
        if transaction != 0.0 {
            self.link.command(0, Command::new(name, transaction, args));
        }
    }

    fn status(&mut self, stream_id: u32, code: &str, description: &str) {
        self.on_status(stream_id, status("status", code, description));
    }

    fn on_status(&mut self, stream_id: u32, info: Value) {
        self.link.command(stream_id, Command::new("onStatus", 0.0, vec![info]));
    }
}

fn unexpected(command: &'static str, state: &'static str) -> Error {
    Error::UnexpectedCommand { command, state }
}

/// The information object of section 7.2.2.
fn status(level: &str, code: &str, description: &str) -> Value {
    Value::object([("level", Value::string(level)), ("code", Value::string(code)), ("description", Value::string(description))])
}
