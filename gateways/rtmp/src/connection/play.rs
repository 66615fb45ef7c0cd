//! An accepted player: sends what its viewer has ready, and listens for what it asks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use patchbay_contract::{Cause, Leg};
use tokio::time::timeout;

use super::{Connection, Ended, one_stream_only, overstayed};
use crate::fanout::{Form, Ready, Viewer};
use crate::proto::server::Event;
use crate::socket;

/// How long a player that is to go may take for what was begun.
const FINISH_MAX: Duration = Duration::from_secs(1);

impl Connection {
    /// Until the stream is closed; the connection goes on then.
    pub(super) async fn play(&mut self, stream_id: u32, leg: Leg) -> Result<(), Ended> {
        let form = Form::Rtmp { chunk_size: self.session.chunk_size(), stream_id };
        let config = &self.shared.config;
        let mut viewer = Viewer::new(leg, Arc::clone(&self.shared.muxes), form, config.lag_max());
        if let Some(socket) = self.socket.lendable() {
            viewer = viewer.with_socket(socket);
        }
        let (cancelled, shutdown) = (viewer.leg().cancelled().clone(), self.shutdown.clone());
        let (mut pieces, mut paused) = (Vec::new(), false);
        let mut result = tokio::select! {
            () = cancelled.cancelled() => Err("kicked"),
            () = shutdown.cancelled() => Err("draining"),
            result = self.send(stream_id, &mut viewer, &mut pieces, &mut paused) => Ok(result),
        };
        if cancelled.is_cancelled() && result.is_err() && self.request_reconnect() {
            result = tokio::select! {
                () = overstayed(&shutdown) => Err("draining"),
                result = self.send(stream_id, &mut viewer, &mut pieces, &mut paused) => Ok(result),
            };
        }
        let (result, cause) = match result {
            Ok(Ok(())) => (Ok(()), Cause::peer("closed")),
            Ok(Err(ended)) => {
                let cause = cause_of(&ended);
                (Err(ended), cause)
            }
            Err(why) => (Err(self.dismiss(stream_id, &mut viewer, &mut pieces).await), Cause::here(why)),
        };
        viewer.end(cause);
        result
    }

    /// Ends what is played from here. What was begun is finished, so that the goodbye is no part of it.
    async fn dismiss(&mut self, stream_id: u32, viewer: &mut Viewer, pieces: &mut Vec<Bytes>) -> Ended {
        viewer.recall(pieces);
        match timeout(FINISH_MAX, socket::write_all(&self.socket, pieces, FINISH_MAX)).await {
            Ok(Ok(())) => {
                self.session.end_play(stream_id, "ended by the server: kicked, or draining");
                Ended::Shutdown
            }
            Ok(Err(error)) => error.into(),
            // Too slow for a goodbye.
            Err(_) => io::Error::from(io::ErrorKind::TimedOut).into(),
        }
    }

    async fn send(&mut self, stream_id: u32, viewer: &mut Viewer, pieces: &mut Vec<Bytes>, paused: &mut bool) -> Result<(), Ended> {
        // What came together with the play command is here already.
        if self.asked(stream_id, viewer, pieces, paused)? {
            return Ok(());
        }
        self.answer(viewer, pieces).await?;
        loop {
            let ready = tokio::select! {
                readable = self.socket.readable() => {
                    readable?;
                    if self.try_read()? {
                        if self.asked(stream_id, viewer, pieces, paused)? {
                            return Ok(());
                        }
                        self.answer(viewer, pieces).await?;
                    }
                    continue;
                }
                ready = viewer.ready(pieces), if !*paused => ready,
            };
            match ready {
                Ready::Send => socket::write_all(&self.socket, pieces, self.stall()).await?,
                Ready::Ended(reason) => {
                    self.session.end_play(stream_id, "the publisher has gone");
                    return Err(Ended::StreamOver(reason));
                }
            }
        }
    }

    /// Writes what the session has to say, between two batches.
    async fn answer(&mut self, viewer: &mut Viewer, pieces: &mut Vec<Bytes>) -> Result<(), Ended> {
        let output = self.session.take_output();
        if !output.is_empty() {
            viewer.recall(pieces);
            pieces.push(output);
            socket::write_all(&self.socket, pieces, self.stall()).await?;
        }
        Ok(())
    }

    /// Does what the player asked for; whether it closed the stream.
    fn asked(&mut self, stream_id: u32, viewer: &mut Viewer, pieces: &mut Vec<Bytes>, paused: &mut bool) -> Result<bool, Ended> {
        while let Some(event) = self.session.poll()? {
            match event {
                Event::Closed { stream_id: id } if id == stream_id => return Ok(true),
                Event::Pause { paused: wanted, .. } => {
                    *paused = wanted;
                    viewer.rejoin(pieces);
                }
                Event::Publish { .. } | Event::Play { .. } => one_stream_only(&mut self.session)?,
                _ => {}
            }
        }
        Ok(false)
    }
}

fn cause_of(ended: &Ended) -> Cause {
    match ended {
        Ended::Socket(error) if error.kind() == io::ErrorKind::TimedOut => Cause::here("too_slow"),
        Ended::StreamOver(reason) => Cause::here(reason.code()),
        Ended::Protocol(error) => Cause::peer("protocol_error").with(error),
        Ended::Closed => Cause::peer("closed"),
        ended => Cause::peer("connection_lost").with(ended),
    }
}
