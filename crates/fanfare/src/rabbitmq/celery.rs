//! Owns how Celery's news become jobs of one project. Does not know what the news mean; that is `queues::celery`.

use std::sync::Arc;

use hub::job::{Job, JobLimits};
use hub::record::State as _;
use queues::celery::{self, News};
use queues::{Answer, Begun, Identity, Intake, Message, Turn, Verdict};
use serde_json::Value;

use super::lane::{Lane, Pass};
use super::{key, settled, verdict};
use crate::codes::{Code, Fault};
use crate::dispatch::{Underway, record_rule};
use crate::rest::App;

/// Keeps what Celery's workers tell.
pub(crate) struct Celery {
    app: App,
    scope: String,
    project: Arc<str>,
    lane: Arc<Lane>,
}

impl Celery {
    /// For the queue of this name.
    pub(crate) fn new(app: App, queue: &str, project: &str) -> Self {
        Self { app, scope: format!("rabbitmq:{queue}"), project: project.into(), lane: Arc::default() }
    }

    fn begin_news(&self, message: &Message, turn: Turn) -> Result<(Pass, Vec<Underway>), Fault> {
        let limits = JobLimits::default();
        let news = celery::read(&message.body, &limits)
            .map_err(|complaint| Fault::new(Code::BadPayload, complaint))?;
        let pass = self.lane.enter(self.app.hub.dispatcher(), turn)?;
        let underway = news.into_iter().map(|news| self.begin_one(news, &pass)).collect::<Result<_, _>>()?;
        Ok((pass, underway))
    }

    fn begin_one(&self, news: News, pass: &Pass) -> Result<Underway, Fault> {
        let record = Job::key_of(&news.task_id);
        let idempotency = key(&self.scope, &news.identity);
        let (project, limits) = (self.project.clone(), JobLimits::default());
        let rule = record_rule::<Job, _, _>(
            move |present, now| celery::decide(present, now, &project, &news, &limits),
            |_| Value::Null,
        );
        self.app.hub.dispatcher().begin(Some(record), Some(idempotency), pass.guard(rule))
    }
}

impl Intake for Celery {
    fn begin<'a>(&'a self, message: &'a Arc<Message>, _: &'a Identity, turn: Turn) -> Answer<'a, Begun> {
        Box::pin(async move {
            match self.begin_news(message, turn) {
                Ok((_, underway)) if underway.is_empty() => Err(Verdict::Ignored),
                Ok((pass, underway)) => Ok(settled(pass, underway)),
                Err(fault) => Err(verdict(fault)),
            }
        })
    }
}
