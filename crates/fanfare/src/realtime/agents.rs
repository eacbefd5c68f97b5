//! Owns when it is asked whether an agent is there: as its sockets come and go, and when a process begins. Does not decide
//! what is told of it; that is `hub::agent`.

use std::sync::Arc;
use std::time::Duration;

use hub::agent::{self, Agent, Seen, Watch};
use hub::principal::{Principal, PrincipalKind};
use hub::record::State as _;
use serde_json::Value;

use super::Hub;
use crate::codes::Code;
use crate::dispatch::{Rule, record_rule};

/// Time until it is tried again to keep what could not be kept.
const RETRY: Duration = Duration::from_secs(1);

/// Tries until it is given up: a store that has been away for an hour has other worries.
const TRIES_MAX: u32 = 3_600;

impl Hub {
    /// A socket of this principal has come or gone; nothing happens unless it is an agent.
    pub(super) fn settle_agent(self: &Arc<Self>, principal: &Principal) {
        let Some(id) = principal.user.clone().filter(|_| principal.kind == PrincipalKind::Agent) else {
            return;
        };
        if !agent::is_id(&id) {
            return tracing::debug!("an agent's id makes no room's name, so nobody is told of it");
        }
        let (hub, projects) = (self.clone(), agent::projects_of(principal));
        self.control.spawn(async move { hub.settle_until_kept(id, projects).await });
    }

    async fn settle_until_kept(self: Arc<Self>, id: Box<str>, projects: Vec<Box<str>>) {
        for _ in 0..TRIES_MAX {
            let (hub, watch) = (self.clone(), self.patience());
            let (agent_id, projects) = (id.clone(), projects.clone());
            let is_elsewhere = !hub.attendance.has_agent(&id) && hub.agents_elsewhere().await.contains(&id);
            let rule: Rule = record_rule::<Agent, _, _>(
                move |present, now| {
                    // As it is in this operation's turn, however late that is.
                    let is_here = is_elsewhere || hub.attendance.has_agent(&agent_id);
                    let seen = Seen { agent_id: agent_id.clone(), projects: projects.clone(), is_here };
                    Ok(agent::settle(present, now, &seen, watch))
                },
                |_| Value::Null,
            );
            match self.dispatcher().change(Some(Agent::key_of(&id)), None, rule).await {
                Ok(_) => return,
                Err(fault) if matches!(fault.code, Code::Busy | Code::StoreUnavailable) => {
                    tokio::time::sleep(RETRY).await;
                }
                Err(fault) => return tracing::warn!(message = fault.message, "an agent is not told of"),
            }
        }
    }

    /// Gives the agents of an earlier process time to come back.
    pub(super) async fn expect_agents(&self) {
        let watch = self.patience();
        let elsewhere = self.agents_elsewhere().await;
        let rule = move || {
            let elsewhere = elsewhere.clone();
            record_rule::<Agent, _, _>(
                move |present, now| {
                    Ok(present.map_or(hub::record::Step { next: None, events: Vec::new() }, |agent| {
                        if elsewhere.contains(agent.id()) {
                            return hub::record::Step::quiet(agent.clone());
                        }
                        agent::expect_back(agent, now, watch)
                    }))
                },
                |_| Value::Null,
            )
        };
        self.for_each::<Agent>(None, rule).await;
    }

    fn patience(&self) -> Watch {
        Watch { began_at: self.began_at, grace: self.agent_grace }
    }
}
