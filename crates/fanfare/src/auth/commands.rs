//! Owns what authentication does to sockets: who may connect, who they are from then on, which rooms they may join,
//! and how they go on with a new token. Does not judge proofs. Invariant: no socket without an identity.

use std::sync::Arc;

use auth::fault::AuthFault;
use engine::{ConnectRequest, Namespace, Refusal, Socket};
use hub::access::Action;
use hub::principal::{Principal, PrincipalKind};
use hub::room::RoomName;
use serde_json::json;

use super::identity::Identity;
use super::presented::Presented;
use super::{ADMIN_NAMESPACE, Authenticator, audit};
use crate::codes::Fault;
use crate::filters::room_of;
use crate::limits::Limits;
use crate::tally::Tally;

/// Guards a namespace: whoever connects to it must say who they are, unless everybody may.
pub(crate) fn register(
    namespace: &mut Namespace,
    auth: &Arc<Authenticator>,
    limits: &Arc<Limits>,
    tally: &Arc<Tally>,
) {
    let (auth, limits, tally) = (auth.clone(), limits.clone(), tally.clone());
    namespace.middleware(move |request| {
        let (auth, limits, tally) = (auth.clone(), limits.clone(), tally.clone());
        async move {
            if !auth.is_open() {
                // From here on not on the shard's thread: signatures take long enough to delay others' packets.
                tokio::task::yield_now().await;
            }
            let address = request.handshake().address().map(|address| address.ip());
            // Before anything is looked at: made-up tokens cost time, too.
            let outcome = match limits.handshake(address) {
                Ok(()) => identify(&auth, &limits, &request).await,
                Err(fault) => Err(fault),
            };
            let fault = match outcome {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            tally.count_fault(fault.code);
            let address = address.map(|address| address.to_string());
            audit::connect_refused(request.namespace(), address.as_deref(), fault.code.as_str());
            let mut data = json!({ "code": fault.code.as_str() });
            if let Some(seconds) = fault.retry_after {
                data["retry_after"] = seconds.into();
            }
            Err(Refusal::new(fault.message).with_data(data))
        }
    });
}

async fn identify(auth: &Authenticator, limits: &Limits, request: &ConnectRequest) -> Result<(), Fault> {
    let presented = Presented::by_socket(request)?;
    let principal = auth.judge(&presented).await?;
    if request.namespace() == ADMIN_NAMESPACE && !auth.is_open() && !principal.is_admin() {
        return Err(AuthFault::RoleMissing.into());
    }
    match request.state::<Identity>() {
        // Recovered: rooms and missed events are the old socket's, so it must be the same user.
        Some(identity) if is_same(&identity.principal(), &principal) => {
            identity.sit(|| limits.seat(&principal))?;
            if !auth.may_have_back(request, &identity, &principal).await {
                // What it missed is queued as one, before anything could be looked at: so it gets none of it.
                identity.standings.clear();
                request.start_over();
            }
            identity.replace(principal);
        }
        Some(_) => return Err(AuthFault::TokenOtherUser.into()),
        None => {
            let identity = Identity::new(principal.clone());
            identity.sit(|| limits.seat(&principal))?;
            request.set_state(identity);
        }
    }
    Ok(())
}

/// What a new token has brought.
pub(crate) struct Refreshed {
    /// When it ends, in RFC 3339; `None` if it does not.
    pub(crate) expires_at: Option<String>,
    /// Rooms that the socket may be in no longer, and has left.
    pub(crate) left: Vec<String>,
}

/// Whether a principal may take another's place on a live socket.
fn is_same(old: &Principal, new: &Principal) -> bool {
    old.user == new.user && old.kind == new.kind
}

/// Who a connected socket is; `None` if that was revoked while it connected, and then it is disconnected.
///
/// Call it first when a socket has connected. Joins the rooms that are its own.
pub(crate) fn admit(auth: &Authenticator, socket: &Socket) -> Option<Arc<Principal>> {
    let Some(identity) = socket.state::<Identity>() else {
        socket.disconnect_connection();
        return None;
    };
    let principal = identity.principal();
    if auth.is_revoked(&principal) {
        audit::connect_refused(socket.namespace(), None, AuthFault::TokenRevoked.code());
        socket.disconnect_connection();
        return None;
    }
    audit::connected(socket, &principal, auth.is_open());
    if !socket.recovered() {
        join_own(socket, &principal);
    }
    Some(principal)
}

/// Has a socket warned and ended with its token. Call it once the socket has been greeted: the warning comes at once
/// for a token that is nearly over.
pub(crate) fn watch_expiry(auth: &Authenticator, socket: &Socket) {
    if let Some(identity) = socket.state::<Identity>() {
        auth.expiries.watch(socket, &identity);
    }
}

fn join_own(socket: &Socket, principal: &Principal) {
    // A key is nobody's user: nothing is sent to it by name.
    if principal.kind != PrincipalKind::Key {
        let own: Vec<RoomName> = principal.own_rooms().collect();
        if !own.is_empty() {
            socket.join(own.iter().map(RoomName::as_str).collect::<Vec<_>>());
        }
    }
}

/// Who a socket is. Nobody in particular, if it has not connected yet.
pub(crate) fn principal_of(socket: &Socket) -> Arc<Principal> {
    socket
        .state::<Identity>()
        .map_or_else(|| Arc::new(Principal::anonymous()), |identity| identity.principal())
}

impl Authenticator {
    /// Whether a socket that comes back may be in all of its rooms still, and so have what it missed there.
    async fn may_have_back(
        &self,
        request: &ConnectRequest,
        identity: &Identity,
        principal: &Principal,
    ) -> bool {
        for room in request.rooms().await {
            let Ok(room) = RoomName::parse(room_of(&room)) else { continue };
            if !identity.standings.of(&room).is_invited
                && self.may(principal, &room, Action::Join).await.is_err()
            {
                return false;
            }
        }
        true
    }
}

/// Whether an operator has brought a socket into a room: an explicit grant, which holds until it leaves.
fn is_invited(socket: &Socket, room: &RoomName) -> bool {
    socket.state::<Identity>().is_some_and(|identity| identity.standings.of(room).is_invited)
}

impl Authenticator {
    /// Whether a socket may join, after asking the application.
    ///
    /// # Errors
    /// As [`Authenticator::may`].
    pub(crate) async fn may_join(&self, socket: &Socket, room: &RoomName) -> Result<(), Fault> {
        let principal = principal_of(socket);
        let outcome =
            if is_invited(socket, room) { Ok(()) } else { self.may(&principal, room, Action::Join).await };
        let refused = outcome.as_ref().err().map(|fault| fault.code.as_str());
        audit::joined(socket, &principal, room.as_str(), refused, self.is_open());
        outcome
    }

    /// Has a socket leave the rooms that its principal may not be in: after a recovery or a refresh that brought less.
    pub(crate) async fn enforce_rooms(&self, socket: &Socket) -> Vec<String> {
        let principal = principal_of(socket);
        let mut left = Vec::new();
        // The first is the socket's own.
        for name in socket.rooms().await.into_iter().skip(1) {
            let Ok(room) = RoomName::parse(room_of(&name)) else { continue };
            if !is_invited(socket, &room) && self.may(&principal, &room, Action::Join).await.is_err() {
                left.push(room.as_str().to_owned());
                socket.leave(name);
            }
        }
        left
    }

    /// Lets a socket go on with a new token: same socket, same user, nothing lost. Answers what the sender is told.
    ///
    /// # Errors
    /// The peer's fault, as for a connect, and [`AuthFault::TokenOtherUser`]. The old token goes on to hold then.
    pub(crate) async fn refresh(&self, socket: &Socket, token: String) -> Result<Refreshed, Fault> {
        let Some(identity) = socket.state::<Identity>() else {
            return Err(AuthFault::TokenMissing.into());
        };
        let old = identity.principal();
        let mut presented = Presented::by_refresh(token, socket.handshake());
        // What narrowed the old token narrows the new one.
        presented.session = old.session.as_deref().map(str::to_owned);
        let judged = self.judge(&presented).await.and_then(|new| {
            let needs_admin = socket.namespace() == ADMIN_NAMESPACE && !self.is_open();
            if !is_same(&old, &new) {
                Err(AuthFault::TokenOtherUser)
            } else if needs_admin && !new.is_admin() {
                Err(AuthFault::RoleMissing)
            } else {
                Ok(new)
            }
        });
        let new = match judged {
            Ok(new) => new,
            Err(fault) => {
                audit::refreshed(socket, &old, Some(fault.code()));
                return Err(fault.into());
            }
        };
        let expires_at = new.expires_at.map(|end| end.to_string());
        audit::refreshed(socket, &new, None);
        identity.replace(new);
        // Revoked while it was judged: whoever revokes looks for it after it is on the list.
        if self.is_revoked(&identity.principal()) {
            socket.disconnect_connection();
            return Err(AuthFault::TokenRevoked.into());
        }
        self.expiries.watch(socket, &identity);
        let left = self.enforce_rooms(socket).await;
        Ok(Refreshed { expires_at, left })
    }
}
