//! What the hub is told of the configuration.

use std::time::Duration;

use patchbay_rules::Ladder;

use super::Config;
use crate::auth::PerAddress;
use crate::hub;

impl Config {
    /// What stream names mean.
    pub fn hub_routes(&self) -> hub::Routes {
        let route = |r: &super::Route| hub::Route {
            pattern: r.stream.clone(),
            kind: r.kind.map(Into::into),
            publish_key: r.publish_key.as_ref().map(|k| k.reveal().to_owned()),
            second_publisher: r.second_publisher,
            play_key: r.play_key.as_ref().map(|k| k.reveal().to_owned()),
            publish_open: r.publish.is_some(),
            play_open: r.play.is_some(),
        };
        hub::Routes(self.routes.iter().map(route).collect())
    }

    /// Its bounds.
    pub fn hub_settings(&self) -> hub::Settings {
        hub::Settings {
            publisher_grace: Duration::from_secs(self.limits.publisher_grace_s.into()),
            rendition_grace: Duration::from_millis(self.transcode.linger_ms.into()),
            sessions_max: self.limits.sessions_max as usize,
            per_address: PerAddress {
                sessions_max: self.limits.per_address_sessions_max,
                half_open_max: self.limits.per_address_half_open_max,
                new_per_s: self.limits.per_address_new_per_s,
            },
            streams_max: self.limits.streams_max as usize,
            renditions_max: self.transcode.jobs_max as usize,
            transcode_cores: self.transcode.cores(),
            ladder: Ladder::new(self.transcode.ladder.clone()),
        }
    }
}
