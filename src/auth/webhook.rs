//! [`Webhook`]: somebody else's server is asked whether a peer may, and told when it has left.
//!
//! Owns: the bound on calls under way, the answer when there is none, the queue of news. Refuses: to wait longer than its
//! timeout, to follow redirects, and to hold up anybody but the peer in question.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use patchbay_contract::{Code, Refusal};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::Act;
use super::call::{Answer, Call};
use super::wire::{self, Target};
use crate::config::{self, Event, WhenDown};

/// News that wait to be sent; what comes while it is full is lost, and counted.
const NEWS_MAX: usize = 1_000;
/// Answers that are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// See the module.
pub struct Webhook {
    line: Arc<Line>,
    events: Vec<Event>,
    when_down: WhenDown,
    cache: Duration,
    remembered: Mutex<HashMap<[u8; 32], (Instant, Answer)>>,
    news: mpsc::Sender<Call>,
}

/// The way to the other side.
struct Line {
    target: Target,
    timeout: Duration,
    calls: Semaphore,
    /// News that are not told yet.
    untold: AtomicUsize,
}

impl Line {
    async fn call(&self, call: &Call) -> Result<Answer, String> {
        let turn = async {
            // Never closed.
            let _turn = self.calls.acquire().await.map_err(|e| e.to_string())?;
            wire::send(&self.target, call).await
        };
        timeout(self.timeout, turn).await.unwrap_or_else(|_| Err(format!("no answer within {} ms", self.timeout.as_millis())))
    }

    /// Sends the news in their order, each within the timeout, until nobody can have any.
    async fn tell(self: Arc<Self>, mut queue: mpsc::Receiver<Call>) {
        while let Some(call) = queue.recv().await {
            match self.call(&call).await {
                Ok(_) => count(call.event, "told"),
                Err(why) => {
                    tracing::warn!(why, event = call.event.name(), stream = %call.stream, "the webhook was not told");
                    count(call.event, "lost");
                }
            }
            self.untold.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Webhook {
    /// As configured; `None` without a URL. Sends its news from a task.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn start(config: &config::Webhook) -> Result<Option<Arc<Self>>, String> {
        let Some(target) = Target::new(config)? else { return Ok(None) };
        let (news, queue) = mpsc::channel(NEWS_MAX);
        let timeout = Duration::from_millis(config.timeout_ms.into());
        let line = Arc::new(Line { target, timeout, calls: Semaphore::new(config.calls_max as usize), untold: AtomicUsize::new(0) });
        tokio::spawn(line.clone().tell(queue));
        Ok(Some(Arc::new(Self {
            line,
            events: config.events.clone(),
            when_down: config.when_down,
            cache: Duration::from_secs(config.cache_s.into()),
            remembered: Mutex::default(),
            news,
        })))
    }

    /// Whether all news are told.
    pub fn is_quiet(&self) -> bool {
        self.line.untold.load(Ordering::Relaxed) == 0
    }

    /// Whether it is asked before this.
    pub fn decides(&self, act: Act) -> bool {
        self.events.contains(&Event::before(act))
    }

    /// Asks. Who is let in leaves a [`Visit`], at whose end the news is sent.
    pub async fn ask(self: &Arc<Self>, act: Act, mut call: Call) -> Result<Visit, Refusal> {
        call.event = Event::before(act);
        if self.decides(act) {
            let key = key(&call);
            let answer = match self.line.call(&call).await {
                Ok(answer) => {
                    count(call.event, if answer.allow { "yes" } else { "no" });
                    self.remember(key, &answer);
                    answer
                }
                Err(why) => {
                    count(call.event, "none");
                    self.without_answer(&key, &why)?
                }
            };
            if !answer.allow {
                let why = answer.reason.map_or_else(String::new, |reason| format!(": {reason}"));
                return Err(Refusal::new(Code::Forbidden, format!("{} {} was refused by the webhook{why}", act.doing(), call.stream)));
            }
        }
        (call.event, call.token) = (Event::after(act), None);
        Ok(Visit { hook: self.clone(), call: Some(call) })
    }

    fn without_answer(&self, key: &[u8; 32], why: &str) -> Result<Answer, Refusal> {
        tracing::warn!(why, "the webhook does not answer");
        let known = match self.when_down {
            WhenDown::Allow => Some(Answer::yes()),
            WhenDown::Deny => None,
            WhenDown::Cached => self.recall(key),
        };
        known.ok_or_else(|| Refusal::new(Code::NotReady, "the webhook that decides on this does not answer; try again in a moment"))
    }

    fn remember(&self, key: [u8; 32], answer: &Answer) {
        if self.when_down != WhenDown::Cached {
            return;
        }
        let mut all = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        // Only permissions: whoever guesses keys must not fill the table.
        if !answer.allow {
            all.remove(&key);
            return;
        }
        if all.len() >= REMEMBERED_MAX {
            all.retain(|_, (at, _)| at.elapsed() < self.cache);
        }
        if all.len() < REMEMBERED_MAX || all.contains_key(&key) {
            all.insert(key, (Instant::now(), answer.clone()));
        }
    }

    fn recall(&self, key: &[u8; 32]) -> Option<Answer> {
        let all = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(key).filter(|(at, _)| at.elapsed() < self.cache).map(|(_, answer)| answer.clone())
    }
}

/// What must be the same for an answer to count again.
fn key(call: &Call) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    let token = call.token.as_deref().unwrap_or_default();
    for part in [call.event.name(), call.stream.as_str(), &call.query, token, &call.ip()] {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut key = [0; 32];
    key.copy_from_slice(hash.finish().as_ref());
    key
}

fn count(event: Event, answer: &'static str) {
    metrics::counter!("patchbay_webhook_answers_total", "event" => event.name(), "answer" => answer).increment(1);
}

/// Somebody who was let in. When this is dropped, the hook is told that it has left.
pub struct Visit {
    hook: Arc<Webhook>,
    /// Taken when it ends.
    call: Option<Call>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        let Some(call) = self.call.take().filter(|call| self.hook.events.contains(&call.event)) else { return };
        let event = call.event;
        let untold = &self.hook.line.untold;
        untold.fetch_add(1, Ordering::Relaxed);
        if self.hook.news.try_send(call).is_err() {
            untold.fetch_sub(1, Ordering::Relaxed);
            count(event, "lost");
        }
    }
}

impl std::fmt::Debug for Visit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Visit")
    }
}
