//! An accepted publisher: its messages become frames until it leaves, falls silent or is asked to go.

use patchbay_bus::{EndReason, now};
use patchbay_contract::{Cause, Publication};
use tokio::time::timeout;

use super::{Connection, Ended, READ_LARGE, one_stream_only, overstayed};
use crate::ingest::Ingest;
use crate::proto::server::Event;

impl Connection {
    /// Until the stream is closed; the connection goes on then.
    pub(super) async fn publish(&mut self, stream_id: u32, publication: Publication) -> Result<(), Ended> {
        self.read_size = READ_LARGE;
        let cancelled = publication.cancelled().clone();
        let shutdown = self.shutdown.clone();
        let mut ingest = Ingest::new(publication);
        let result = tokio::select! {
            () = cancelled.cancelled() => {
                if self.request_reconnect() {
                    tokio::select! {
                        () = overstayed(&shutdown) => {}
                        // However it leaves, it does so at our wish.
                        _ = self.receive(stream_id, &mut ingest) => {}
                    }
                    ingest.end(EndReason::Stopped, Cause::here("draining"));
                    self.session.end_publish(stream_id, "the server stops");
                    return Err(Ended::Shutdown);
                }
                self.session.end_publish(stream_id, "ended by the server: kicked, taken over by another publisher, or draining");
                ingest.end(EndReason::Stopped, Cause::here("kicked"));
                return Err(Ended::Shutdown);
            }
            () = shutdown.cancelled() => {
                self.session.end_publish(stream_id, "the server stops");
                ingest.end(EndReason::Stopped, Cause::here("draining"));
                return Err(Ended::Shutdown);
            }
            result = self.receive(stream_id, &mut ingest) => result,
        };
        let (reason, cause) = match &result {
            Ok(()) => (EndReason::Finished, Cause::peer("closed")),
            Err(Ended::HalfOpen) => (EndReason::Lost, Cause::peer("timeout").with("the publisher fell silent")),
            Err(Ended::Protocol(error)) => (EndReason::Lost, Cause::peer("protocol_error").with(error)),
            Err(ended) => (EndReason::Lost, Cause::peer("connection_lost").with(ended)),
        };
        ingest.end(reason, cause);
        result
    }

    async fn receive(&mut self, stream_id: u32, ingest: &mut Ingest) -> Result<(), Ended> {
        let idle = self.shared.config.idle_timeout();
        loop {
            // Whole messages that were read together arrived together.
            let arrival = now();
            while let Some(event) = self.session.poll()? {
                match event {
                    Event::Video { timestamp, payload, stream_id: id } if id == stream_id => ingest.video(timestamp, payload, arrival),
                    Event::Audio { timestamp, payload, stream_id: id } if id == stream_id => ingest.audio(timestamp, payload, arrival),
                    Event::Data { data, stream_id: id, .. } if id == stream_id => ingest.data(&data),
                    Event::Closed { stream_id: id } if id == stream_id => return Ok(()),
                    Event::Publish { .. } | Event::Play { .. } => one_stream_only(&mut self.session)?,
                    _ => {}
                }
            }
            self.write_output().await?;
            timeout(idle, self.read()).await.map_err(|_| Ended::HalfOpen)??;
        }
    }
}
