//! GoBroke: receive middleware, a dispatched logic, the raw codec, defaults.

use gobroke_bench::{ACK, ANY, GROUPS, Mode, Whom, ready, room, tls::Identity};
use gobroke_core::{
    Admission, Broke, Client, ClientId, Logic, LogicContext, LogicResult, Message, Target,
};
use gobroke_endpoints::{RawCodec, TcpEndpoint, Tls, WebSocketEndpoint};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mode = Mode::from_args();
    let tcp = std::env::args().nth(2).as_deref() == Some("tcp");
    let broke = Broke::builder()
        .receive_middleware(|message: &mut Message| {
            if message.payload().len() > 1 << 20 {
                message.reject("too large");
            }
        })
        .logic(Logic::dispatched("bench", move |message, ctx| {
            handle(mode, message, ctx)
        }));
    let codec = || RawCodec::to_logic("bench");
    // The files are read at the start.
    let files = tempfile::tempdir()?;
    let broke = match (tcp, Identity::from_env()) {
        (true, None) => broke.endpoint(TcpEndpoint::bind(ANY).codec(codec())),
        (false, None) => broke.endpoint(WebSocketEndpoint::bind(ANY).codec(codec())),
        (_, Some(identity)) => {
            let (certificate, key) = (files.path().join("chain.pem"), files.path().join("key.pem"));
            std::fs::write(&certificate, identity.certificate)?;
            std::fs::write(&key, identity.key)?;
            let tls = Tls::files(certificate, key);
            match tcp {
                true => broke.endpoint(TcpEndpoint::bind(ANY).codec(codec()).tls(tls)),
                false => broke.endpoint(WebSocketEndpoint::bind(ANY).codec(codec()).tls(tls)),
            }
        }
    };
    let broke = match mode {
        Mode::Rooms | Mode::Beside => broke.on_connect(async |request| {
            let room = room(request.path.as_deref().unwrap_or_default());
            Ok(Admission::anonymous().in_group(room.to_string()))
        }),
        Mode::Mix => broke.on_connect(async |request| {
            let index = room(request.path.as_deref().unwrap_or_default());
            Ok(Admission::identified(client(index)).in_group((index % GROUPS).to_string()))
        }),
        _ => broke,
    };
    let broke = broke.start().await?;
    drop(files);
    let address = broke.address(if tcp { "tcp" } else { "ws" });
    ready(address.ok_or("it is not bound")?);
    broke.until_signal().await;
    Ok(())
}

fn handle(mode: Mode, mut message: Message, ctx: &LogicContext) -> LogicResult {
    let Some(sender) = message.client() else {
        return Ok(());
    };
    match mode {
        Mode::Beside if !is_in_room(ctx, sender) => {
            let pair = ctx.group_members("1");
            let Some(other) = pair.iter().map(Client::id).find(|id| *id != sender) else {
                return Ok(());
            };
            message.targets_mut().clear();
            ctx.send(message.to_client(other))?;
        }
        Mode::Beside => {
            message.targets_mut().clear();
            ctx.send(message.to_group("0"))?;
        }
        Mode::Echo => {
            ctx.send_back(message)?;
        }
        Mode::Mix => {
            message.targets_mut().clear();
            let message = match Whom::of_payload(message.payload()) {
                Some(Whom::Group(group)) => message.to_group(group.to_string()),
                Some(Whom::One(index)) => message.to_client(client(index)),
                Some(Whom::All) | None => message.to_all(),
            };
            ctx.send(message)?;
        }
        Mode::All | Mode::AllAck | Mode::Others | Mode::OthersAck => {
            let beginning = ..ACK.min(message.payload().len());
            let acknowledgement = mode
                .acknowledges()
                .then(|| message.payload().slice(beginning));
            if !mode.includes_sender() {
                message.targets_mut().exclude(sender);
            }
            ctx.broadcast(message)?;
            if let Some(acknowledgement) = acknowledgement {
                ctx.send(Message::new(acknowledgement).to_client(sender))?;
            }
        }
        Mode::Rooms => {
            let rooms = ctx.local_client(sender).map(|client| client.groups());
            message.targets_mut().clear();
            for room in rooms.unwrap_or_default() {
                message.targets_mut().add(Target::Group(room));
            }
            ctx.send(message)?;
        }
    }
    Ok(())
}

/// Who connects as the one of this index.
fn client(index: usize) -> ClientId {
    // None is nil, which names nobody.
    uuid::Uuid::from_u128(1 + index as u128).into()
}

fn is_in_room(ctx: &LogicContext, sender: ClientId) -> bool {
    ctx.local_client(sender)
        .is_some_and(|client| client.groups().iter().any(|group| group == "0"))
}
