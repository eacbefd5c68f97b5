//! Owns what GitHub's webhooks mean: which of them become `pr.*` and `issue.*` events, of which project.
//! Does not verify signatures, and does not know where the table of repositories comes from.
//!
//! | GitHub's event | action | ours |
//! |---|---|---|
//! | `pull_request` | opened | `pr.created` |
//! | | closed, and merged | `pr.merged` |
//! | | closed otherwise | `pr.closed` |
//! | | any other that [`PULL_REQUEST_UPDATES`] names | `pr.updated` |
//! | `issues` | opened | `issue.created` |
//! | | closed, deleted, transferred | `issue.closed` |
//! | | any other that [`ISSUE_UPDATES`] names | `issue.updated` |
//!
//! Everything else is ignored, and the answer says why. Invariant: texts that somebody else wrote are cut to their
//! bounds, never refused: a long title must not lose an event.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::fault::{Fault, Refusal};
use crate::payload::{Extra, Id};
use crate::workspace::{IssueClosed, IssueCreated, IssueUpdated, PrClosed, PrCreated, PrMerged, PrUpdated};

/// Bytes of a title, name or URL that are kept; GitHub's titles have at most 1,024.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Labels and assignees that are kept; GitHub has at most 100 labels and 10 assignees.
pub const LIST_MAX: usize = 100;

/// Actions of `pull_request` that become `pr.updated`.
pub const PULL_REQUEST_UPDATES: &[&str] = &[
    "assigned",
    "auto_merge_disabled",
    "auto_merge_enabled",
    "converted_to_draft",
    "demilestoned",
    "dequeued",
    "edited",
    "enqueued",
    "labeled",
    "locked",
    "milestoned",
    "ready_for_review",
    "reopened",
    "review_request_removed",
    "review_requested",
    "synchronize",
    "unassigned",
    "unlabeled",
    "unlocked",
];

/// Actions of `issues` that become `issue.updated`.
pub const ISSUE_UPDATES: &[&str] = &[
    "assigned",
    "demilestoned",
    "edited",
    "labeled",
    "locked",
    "milestoned",
    "pinned",
    "reopened",
    "typed",
    "unassigned",
    "unlabeled",
    "unlocked",
    "unpinned",
    "untyped",
];

/// What a webhook comes to.
#[derive(Clone, Debug, PartialEq)]
pub enum Webhook {
    /// An event of a project.
    Event {
        /// The event's name, such as `pr.merged`.
        name: &'static str,
        /// The project that the repository is mapped to.
        project: Id,
        /// The event's data.
        data: Value,
    },
    /// Nothing.
    Ignored(Why),
}

/// Why a webhook comes to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// GitHub asks whether we are there.
    Ping,
    /// No event of ours has to do with it.
    UnknownEvent,
    /// The event is known, this action is not.
    UnknownAction(Box<str>),
    /// The repository is mapped to no project.
    UnmappedRepository(Box<str>),
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Ping => f.write_str("a ping"),
            Why::UnknownEvent => f.write_str("events of this kind are not passed on"),
            Why::UnknownAction(action) => write!(f, "the action `{action}` is not passed on"),
            Why::UnmappedRepository(name) => write!(f, "the repository `{name}` is mapped to no project"),
        }
    }
}

#[derive(Deserialize)]
struct Hook {
    #[serde(default)]
    action: String,
    repository: Repository,
    pull_request: Option<PullRequest>,
    issue: Option<Issue>,
    sender: Option<Account>,
    changes: Option<Changes>,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
    html_url: Option<String>,
}

#[derive(Deserialize)]
struct PullRequest {
    number: u64,
    title: Option<String>,
    html_url: Option<String>,
    state: Option<String>,
    user: Option<Account>,
    merged: Option<bool>,
    merged_by: Option<Account>,
    merge_commit_sha: Option<String>,
    draft: Option<bool>,
    head: Option<Branch>,
    base: Option<Branch>,
    labels: Option<Vec<Label>>,
}

#[derive(Deserialize)]
struct Issue {
    number: u64,
    title: Option<String>,
    html_url: Option<String>,
    state: Option<String>,
    state_reason: Option<String>,
    user: Option<Account>,
    labels: Option<Vec<Label>>,
    assignees: Option<Vec<Account>>,
}

#[derive(Deserialize)]
struct Account {
    login: String,
}

#[derive(Deserialize)]
struct Branch {
    #[serde(rename = "ref")]
    name: String,
}

#[derive(Deserialize)]
struct Label {
    name: String,
}

/// What was there before an edit. Of a body only that it was changed: it may be long, and it is not in our events.
#[derive(Deserialize)]
struct Changes {
    title: Option<Before>,
    body: Option<serde::de::IgnoredAny>,
    base: Option<BaseChange>,
}

#[derive(Deserialize)]
struct BaseChange {
    #[serde(rename = "ref")]
    name: Option<Before>,
}

#[derive(Deserialize)]
struct Before {
    from: Option<String>,
}

/// Understands a webhook. `event` is the header `X-GitHub-Event`, `body` the JSON whose signature was verified;
/// `project_of` finds the project by a repository's full name (`owner/name`, as GitHub spells it).
///
/// Takes memory in proportion to the body, whose length is the caller's to bound.
///
/// # Errors
/// The peer's fault: [`Refusal::BadPayload`] if the body is not what GitHub sends for this event.
pub fn translate(
    event: &str,
    body: &[u8],
    project_of: impl FnOnce(&str) -> Option<Id>,
) -> Result<Webhook, Fault> {
    match event {
        "ping" => return Ok(Webhook::Ignored(Why::Ping)),
        "pull_request" | "issues" => {}
        _ => return Ok(Webhook::Ignored(Why::UnknownEvent)),
    }
    let hook: Hook = serde_json::from_slice(body)
        .map_err(|error| Fault::new(Refusal::BadPayload, format!("not a webhook of `{event}`: {error}")))?;
    let Some(project) = project_of(&hook.repository.full_name) else {
        return Ok(Webhook::Ignored(Why::UnmappedRepository(cut(hook.repository.full_name).into())));
    };
    let translated = if event == "pull_request" {
        translate_pull_request(hook, &project)?
    } else {
        translate_issue(hook, &project)?
    };
    Ok(match translated {
        Ok((name, data)) => Webhook::Event { name, project, data },
        Err(why) => Webhook::Ignored(why),
    })
}

type Translated = Result<(&'static str, Value), Why>;

fn translate_pull_request(hook: Hook, project: &Id) -> Result<Translated, Fault> {
    let request = hook.pull_request.ok_or_else(|| missing("pull_request"))?;
    let number = request.number;
    let title = request.title.map(cut);
    let url = request.html_url.map(cut);
    let author = request.user.map(login);
    let repository_url = hook.repository.html_url.map(cut);
    let labels = labels(request.labels);
    let source = request.head.map(|branch| cut(branch.name));
    let target = request.base.map(|branch| cut(branch.name));
    let sender = hook.sender.map(login).map(Id::from);
    let project = project.clone();
    Ok(Ok(match hook.action.as_str() {
        "opened" => {
            let mut data = PrCreated::new(project, number, title.unwrap_or_default());
            data.status = request.state.map(cut);
            (data.url, data.author, data.repository_url, data.labels) = (url, author, repository_url, labels);
            (data.source_branch, data.target_branch, data.draft) = (source, target, request.draft);
            (PrCreated::NAME, to_json(&data))
        }
        "closed" if request.merged == Some(true) => {
            let mut data = PrMerged::new(project, number).status("merged");
            (data.title, data.url, data.author) = (title, url, author);
            (data.repository_url, data.labels) = (repository_url, labels);
            (data.source_branch, data.target_branch) = (source, target);
            data.merged_by = request.merged_by.map(login).map(Id::from).or(sender);
            data.merge_commit = request.merge_commit_sha.map(cut);
            (PrMerged::NAME, to_json(&data))
        }
        "closed" => {
            let mut data = PrClosed::new(project, number).status("closed");
            (data.title, data.url, data.author) = (title, url, author);
            (data.repository_url, data.labels, data.closed_by) = (repository_url, labels, sender);
            (PrClosed::NAME, to_json(&data))
        }
        action if PULL_REQUEST_UPDATES.contains(&action) => {
            let mut data = PrUpdated::new(project, number).action(action);
            data.changes = changes(hook.changes, title.as_deref(), target.as_deref());
            data.status = request.state.map(cut);
            (data.title, data.url, data.author) = (title, url, author);
            (data.repository_url, data.labels, data.updated_by) = (repository_url, labels, sender);
            (data.source_branch, data.target_branch, data.draft) = (source, target, request.draft);
            (PrUpdated::NAME, to_json(&data))
        }
        _ => return Ok(Err(Why::UnknownAction(cut(hook.action).into()))),
    }))
}

fn translate_issue(hook: Hook, project: &Id) -> Result<Translated, Fault> {
    let issue = hook.issue.ok_or_else(|| missing("issue"))?;
    let number = issue.number;
    let title = issue.title.map(cut);
    let url = issue.html_url.map(cut);
    let author = issue.user.map(login);
    let repository_url = hook.repository.html_url.map(cut);
    let labels = labels(issue.labels);
    let assignees =
        issue.assignees.map(|accounts| accounts.into_iter().take(LIST_MAX).map(login).collect::<Vec<_>>());
    let sender = hook.sender.map(login).map(Id::from);
    let project = project.clone();
    Ok(Ok(match hook.action.as_str() {
        "opened" => {
            let mut data = IssueCreated::new(project, number, title.unwrap_or_default());
            data.status = issue.state.map(cut);
            (data.url, data.author, data.repository_url) = (url, author, repository_url);
            (data.labels, data.assignees) = (labels, assignees);
            (IssueCreated::NAME, to_json(&data))
        }
        action @ ("closed" | "deleted" | "transferred") => {
            let mut data = IssueClosed::new(project, number).status("closed");
            data.reason =
                if action == "closed" { issue.state_reason.map(cut) } else { Some(action.to_owned()) };
            (data.title, data.url, data.author, data.repository_url) = (title, url, author, repository_url);
            (data.labels, data.assignees, data.closed_by) = (labels, assignees, sender);
            (IssueClosed::NAME, to_json(&data))
        }
        action if ISSUE_UPDATES.contains(&action) => {
            let mut data = IssueUpdated::new(project, number).action(action);
            data.changes = changes(hook.changes, title.as_deref(), None);
            data.status = issue.state.map(cut);
            (data.title, data.url, data.author, data.repository_url) = (title, url, author, repository_url);
            (data.labels, data.assignees, data.updated_by) = (labels, assignees, sender);
            (IssueUpdated::NAME, to_json(&data))
        }
        _ => return Ok(Err(Why::UnknownAction(cut(hook.action).into()))),
    }))
}

fn missing(field: &str) -> Fault {
    Fault::new(Refusal::BadPayload, format!("the webhook has no `{field}`"))
}

fn login(account: Account) -> String {
    // Ids are shorter than other texts.
    cut_to(account.login, crate::payload::ID_BYTES_MAX)
}

fn labels(labels: Option<Vec<Label>>) -> Option<Vec<String>> {
    labels.map(|labels| labels.into_iter().take(LIST_MAX).map(|label| cut(label.name)).collect())
}

fn changes(changes: Option<Changes>, title: Option<&str>, target: Option<&str>) -> Option<Extra> {
    let changes = changes?;
    let mut changed = Extra::new();
    if let Some(before) = changes.title {
        changed.insert("title".to_owned(), json!({ "from": before.from.map(cut), "to": title }));
    }
    if let Some(before) = changes.base.and_then(|base| base.name) {
        changed.insert("target_branch".to_owned(), json!({ "from": before.from.map(cut), "to": target }));
    }
    if changes.body.is_some() {
        changed.insert("body".to_owned(), json!(true));
    }
    (!changed.is_empty()).then_some(changed)
}

fn cut(text: String) -> String {
    cut_to(text, TEXT_BYTES_MAX)
}

fn cut_to(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

fn to_json<T: serde::Serialize>(data: &T) -> Value {
    serde_json::to_value(data).expect("invariant: payloads are texts, numbers and lists")
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;

    use super::*;
    use crate::schema::inspect;

    fn pull_request(action: &str, merged: bool) -> Value {
        json!({
            "action": action,
            "number": 42,
            "pull_request": {
                "id": 279_147_437, "number": 42, "state": if action == "closed" { "closed" } else { "open" },
                "title": "Add a cache", "html_url": "https://github.com/acme/shop/pull/42",
                "user": {"login": "ann", "id": 1, "type": "User"},
                "body": null, "draft": false, "merged": merged, "merge_commit_sha": "f95f852b",
                "merged_by": if merged { json!({"login": "bob", "id": 2}) } else { Value::Null },
                "labels": [{"id": 9, "name": "speed", "color": "f29513"}],
                "head": {"ref": "cache", "sha": "ec26c3e5"}, "base": {"ref": "main", "sha": "f95f852a"},
            },
            "repository": {"id": 3, "name": "shop", "full_name": "acme/shop", "html_url": "https://github.com/acme/shop"},
            "sender": {"login": "cid", "id": 4},
        })
    }

    fn issue(action: &str) -> Value {
        json!({
            "action": action,
            "issue": {
                "id": 73_464_126, "number": 7, "state": "open", "state_reason": "not_planned", "title": "It is slow",
                "html_url": "https://github.com/acme/shop/issues/7", "user": {"login": "ann"},
                "labels": [{"name": "bug"}, {"name": "speed"}], "assignees": [{"login": "bob"}], "comments": 0,
            },
            "repository": {"full_name": "acme/shop", "html_url": "https://github.com/acme/shop"},
            "sender": {"login": "cid"},
        })
    }

    fn understand(event: &str, body: &Value) -> Webhook {
        let project_of = |name: &str| (name == "acme/shop").then(|| Id::from("p1"));
        translate(event, body.to_string().as_bytes(), project_of).unwrap()
    }

    /// The event's name and data, after a check that it is valid and goes to its project.
    #[track_caller]
    fn becomes(event: &str, body: &Value) -> (&'static str, Value) {
        let Webhook::Event { name, project, data } = understand(event, body) else { panic!("it is ignored") };
        assert_eq!(project.as_str(), "p1");
        let inspected = inspect(name, &to_raw_value(&data).unwrap()).unwrap().expect("it is known");
        assert_eq!(inspected.rooms.unwrap()[0].as_str(), "project:p1");
        (name, data)
    }

    #[test]
    fn pull_requests_are_created_updated_merged_and_closed() {
        let (name, data) = becomes("pull_request", &pull_request("opened", false));
        assert_eq!(name, "pr.created");
        let expected = json!({
            "project_id": "p1", "number": 42, "title": "Add a cache", "url": "https://github.com/acme/shop/pull/42",
            "author": "ann", "repository_url": "https://github.com/acme/shop", "status": "open",
            "source_branch": "cache", "target_branch": "main", "draft": false, "labels": ["speed"],
        });
        assert_eq!(data, expected);
        let (name, data) = becomes("pull_request", &pull_request("closed", true));
        assert_eq!(
            (name, &data["merged_by"], &data["status"]),
            ("pr.merged", &json!("bob"), &json!("merged"))
        );
        assert_eq!(data["merge_commit"], json!("f95f852b"));
        let (name, data) = becomes("pull_request", &pull_request("closed", false));
        assert_eq!((name, &data["closed_by"]), ("pr.closed", &json!("cid")));
        for action in PULL_REQUEST_UPDATES {
            let (name, data) = becomes("pull_request", &pull_request(action, false));
            assert_eq!((name, &data["action"]), ("pr.updated", &json!(action)));
        }
    }

    #[test]
    fn issues_are_created_updated_and_closed() {
        assert_eq!(becomes("issues", &issue("opened")).0, "issue.created");
        for action in ISSUE_UPDATES {
            let (name, data) = becomes("issues", &issue(action));
            assert_eq!(
                (name, &data["action"], &data["updated_by"]),
                ("issue.updated", &json!(action), &json!("cid"))
            );
        }
        for (action, reason) in
            [("closed", "not_planned"), ("deleted", "deleted"), ("transferred", "transferred")]
        {
            let (name, data) = becomes("issues", &issue(action));
            assert_eq!((name, &data["reason"]), ("issue.closed", &json!(reason)));
        }
    }

    #[test]
    fn edits_say_what_was_there_before() {
        let mut body = pull_request("edited", false);
        body["changes"] = json!({
            "title": {"from": "Add cache"}, "body": {"from": "x"}, "base": {"ref": {"from": "dev"}, "sha": {"from": "0"}},
        });
        let (_, data) = becomes("pull_request", &body);
        let expected = json!({
            "title": {"from": "Add cache", "to": "Add a cache"},
            "target_branch": {"from": "dev", "to": "main"},
            "body": true,
        });
        assert_eq!(data["changes"], expected);
    }

    #[test]
    fn everything_else_is_ignored_and_says_why() {
        let ignored = |event: &str, body: &Value| match understand(event, body) {
            Webhook::Ignored(why) => why,
            Webhook::Event { name, .. } => panic!("it becomes {name}"),
        };
        assert_eq!(ignored("ping", &json!({"zen": "x"})), Why::Ping);
        assert_eq!(ignored("push", &json!([])), Why::UnknownEvent);
        assert_eq!(ignored("issues", &issue("sneezed")), Why::UnknownAction("sneezed".into()));
        let mut elsewhere = pull_request("opened", false);
        elsewhere["repository"]["full_name"] = json!("acme/other");
        assert_eq!(ignored("pull_request", &elsewhere), Why::UnmappedRepository("acme/other".into()));
    }

    #[test]
    fn long_texts_are_cut_and_absent_ones_left_out() {
        let mut body = issue("opened");
        body["issue"]["title"] = json!("é".repeat(TEXT_BYTES_MAX));
        body["issue"]["labels"] = json!(vec![json!({"name": "l"}); 2 * LIST_MAX]);
        body["issue"]["user"] = Value::Null;
        let (_, data) = becomes("issues", &body);
        assert_eq!(data["title"].as_str().unwrap().len(), TEXT_BYTES_MAX);
        assert_eq!(data["labels"].as_array().unwrap().len(), LIST_MAX);
        assert_eq!(data.get("author"), None);
    }

    #[test]
    fn bodies_that_are_not_githubs_are_refused() {
        for body in
            [&b""[..], b"{", b"[]", b"{}", br#"{"action":"opened","repository":{"full_name":"acme/shop"}}"#]
        {
            let fault = translate("issues", body, |_| Some(Id::from("p"))).expect_err("it is accepted");
            assert_eq!(fault.refusal, Refusal::BadPayload);
        }
    }

    #[test]
    fn bodies_that_are_cut_or_spoilt_anywhere_are_refused_or_understood() {
        let body = pull_request("edited", false).to_string().into_bytes();
        let mut refused = 0;
        for at in 0..body.len() {
            for byte in [b'"', b'0', b'{', b']', 0xff] {
                let mut spoilt = body.clone();
                spoilt[at] = byte;
                refused += usize::from(translate("pull_request", &spoilt, |_| Some(Id::from("p"))).is_err());
            }
            assert!(translate("pull_request", &body[..at], |_| Some(Id::from("p"))).is_err());
        }
        assert!(refused > body.len());
    }
}
