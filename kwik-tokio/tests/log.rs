//! What the log says to an operator who asks for warnings only, and what it keeps. A program of its own, since its
//! subscriber is the whole process's.

#[cfg(test)]
#[expect(dead_code, reason = "shared with the tests by topic")]
mod common;

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kwik_tokio::{Limits, PathPolicy, PathTarget, generate_identity};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Metadata, Subscriber, span};

use crate::common::{Fleet, within};

/// The spans that somebody holds, and every warning with the span it is in.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    spans: BTreeMap<u64, Held>,
    next: u64,
    warnings: Vec<(String, Option<String>)>,
}

struct Held {
    text: String,
    count: usize,
}

impl Recorder {
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The fields of a span or of an event.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).expect("a string takes all");
    }
}

impl Subscriber for Recorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= LevelFilter::WARN
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut text = Text(attributes.metadata().name().to_owned());
        attributes.record(&mut text);
        let mut recorded = self.lock();
        recorded.next += 1;
        let id = recorded.next;
        recorded.spans.insert(id, Held { text: text.0, count: 1 });
        span::Id::from_u64(id)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let mut recorded = self.lock();
        let parent = event.parent().and_then(|id| recorded.spans.get(&id.into_u64())).map(|held| held.text.clone());
        recorded.warnings.push((text.0, parent));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}

    fn clone_span(&self, id: &span::Id) -> span::Id {
        self.lock().spans.entry(id.into_u64()).and_modify(|held| held.count += 1);
        id.clone()
    }

    fn try_close(&self, id: span::Id) -> bool {
        let mut recorded = self.lock();
        let left = recorded.spans.get_mut(&id.into_u64()).map(|held| {
            held.count -= 1;
            held.count
        });
        if left == Some(0) {
            recorded.spans.remove(&id.into_u64());
        }
        left == Some(0)
    }
}

/// A primary may name servers in vain for as long as the session lives. The log of its client tells of each, and keeps none.
#[tokio::test]
async fn warning_names_its_path_and_a_refused_path_leaves_no_span() {
    const REFUSED: usize = 200;
    let recorder = Recorder::default();
    tracing::subscriber::set_global_default(recorder.clone()).expect("nobody else listens");
    within(async {
        let refuse = |ca: &common::Ca| ca.client().path_policy(PathPolicy::refuse_all());
        let fleet = Fleet::with_client(0, Limits::default(), refuse).await;
        for _ in 0..REFUSED {
            let target = PathTarget {
                address: "127.0.0.1:4433".parse().expect("an address"),
                server_name: "localhost".to_owned(),
                identity: generate_identity().expect("randomness").public(),
            };
            fleet.primary.add_path(target).await.expect_err("the client takes no secondaries");
        }
        let recorded = recorder.lock();
        let paths = recorded.spans.values().filter(|held| held.text.starts_with("path")).count();
        assert!(paths <= 4, "{paths} spans of paths, of which 2 live");
        let refusals = recorded.warnings.iter().filter(|(text, _)| text.contains("path refused"));
        assert_eq!(refusals.clone().count(), REFUSED);
        assert!(refusals.clone().all(|(_, span)| span.as_ref().is_some_and(|span| span.starts_with("path id="))));
    })
    .await;
}
