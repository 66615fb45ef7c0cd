//! An accepted player: sends what its viewer has ready, and listens for what it asks.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use patchbay_contract::{Cause, Leg};

use super::{Connection, Ended, one_stream_only};
use crate::fanout::{Form, Ready, Viewer};
use crate::proto::server::Event;
use crate::socket;

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
        let result = tokio::select! {
            () = cancelled.cancelled() => Err((Ended::Shutdown, Cause::here("kicked"))),
            () = shutdown.cancelled() => Err((Ended::Shutdown, Cause::here("draining"))),
            result = self.send(stream_id, &mut viewer) => result.map_err(|ended| {
                let cause = cause_of(&ended);
                (ended, cause)
            }),
        };
        let (result, cause) = match result {
            Ok(()) => (Ok(()), Cause::peer("closed")),
            Err((ended, cause)) => (Err(ended), cause),
        };
        viewer.end(cause);
        result
    }

    async fn send(&mut self, stream_id: u32, viewer: &mut Viewer) -> Result<(), Ended> {
        let mut pieces: Vec<Bytes> = Vec::new();
        // What came together with the play command is here already.
        let mut paused = false;
        if self.asked(stream_id, viewer, &mut pieces, &mut paused)? {
            return Ok(());
        }
        self.write_output().await?;
        loop {
            let ready = tokio::select! {
                readable = self.socket.readable() => {
                    readable?;
                    if self.try_read()? {
                        if self.asked(stream_id, viewer, &mut pieces, &mut paused)? {
                            return Ok(());
                        }
                        self.answer(viewer, &mut pieces).await?;
                    }
                    continue;
                }
                ready = viewer.ready(&mut pieces), if !paused => ready,
            };
            match ready {
                Ready::Send => socket::write_all(&self.socket, &mut pieces, self.stall()).await?,
                Ready::Ended(reason) => {
                    self.session.end_play(stream_id);
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
