//! Owns a method for each workspace event that publishers may send. Does not know how they are sent.

use hub::workspace;

use crate::error::Error;
use crate::event::Event;
use crate::publisher::Publisher;

/// Tells what happens in workspaces: to the project's room, and to the agent's or user's where the payload says one.
///
/// Each method hands the event over and does not wait; see [`Publisher::enqueue`] for its errors. To know where an event
/// stands, [publish](Publisher::publish) an [`Event::of`] its payload.
///
/// ```no_run
/// use fanfare_sdk::Publisher;
/// use fanfare_sdk::workspace::{ProjectUpdated, WorkflowProgress};
///
/// # async fn example() -> Result<(), fanfare_sdk::Error> {
/// let broadcaster = Publisher::new("http://127.0.0.1:8000")?.broadcaster();
/// broadcaster.broadcast_project_updated(&ProjectUpdated::new("shop").status("active").updated_by("ann"))?;
/// broadcaster.broadcast_workflow_progress(&WorkflowProgress::new("shop", "build-7", 40).step("compile"))?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Broadcaster {
    publisher: Publisher,
}

macro_rules! broadcasts {
    ($($method:ident: $payload:ident;)+) => {
        impl Broadcaster {
            pub(crate) fn new(publisher: Publisher) -> Self {
                Self { publisher }
            }

            $(
                #[doc = concat!("Hands a [`workspace::", stringify!($payload), "`] over.")]
                ///
                /// # Errors
                /// As [`Publisher::enqueue`].
                pub fn $method(&self, payload: &workspace::$payload) -> Result<(), Error> {
                    self.publisher.enqueue(Event::of(payload))
                }
            )+
        }

        /// The names of the events that have a method, in the order of the methods.
        #[cfg(test)]
        const BROADCAST: &[(&str, &str)] =
            &[$((stringify!($method), workspace::$payload::NAME),)+];
    };
}

broadcasts! {
    broadcast_project_created: ProjectCreated;
    broadcast_project_updated: ProjectUpdated;
    broadcast_project_deleted: ProjectDeleted;
    broadcast_agent_status_changed: AgentStatusChanged;
    broadcast_agent_connected: AgentConnected;
    broadcast_agent_disconnected: AgentDisconnected;
    broadcast_workflow_started: WorkflowStarted;
    broadcast_workflow_progress: WorkflowProgress;
    broadcast_workflow_completed: WorkflowCompleted;
    broadcast_workflow_failed: WorkflowFailed;
    broadcast_workflow_cancelled: WorkflowCancelled;
    broadcast_pr_created: PrCreated;
    broadcast_pr_updated: PrUpdated;
    broadcast_pr_closed: PrClosed;
    broadcast_pr_merged: PrMerged;
    broadcast_issue_created: IssueCreated;
    broadcast_issue_updated: IssueUpdated;
    broadcast_issue_closed: IssueClosed;
    broadcast_ai_suggestion: AiSuggestion;
    broadcast_ai_analysis_complete: AiAnalysisComplete;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workspace_event_that_publishers_may_send_has_its_method() {
        let expected: Vec<_> = workspace::EVENTS
            .iter()
            .filter(|event| event.is_publishable())
            .map(|event| (format!("broadcast_{}", event.name.replace('.', "_")), event.name.to_owned()))
            .collect();
        let found: Vec<_> =
            BROADCAST.iter().map(|(method, name)| ((*method).to_owned(), (*name).to_owned())).collect();
        assert_eq!(found, expected);
    }
}
