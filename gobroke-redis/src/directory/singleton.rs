//! The leases of logic modules that run once.

use gobroke_core::{
    Name,
    cluster::{Claim, ClusterError},
};

use crate::{commands::Commands, instance::Instance, keys::parse_instance, script};

/// Renews a lease that is held with this token, or takes it: where it was given back, or has not been renewed for as long
/// as a lease by this instance's own clock. It is taken only over connections, and from data, that have answered
/// heartbeats for a whole lease: a holder of which these data do not know has stopped by then.
pub(super) async fn claim(
    instance: &Instance,
    logic: &Name,
    held: Option<u64>,
    take: bool,
) -> Result<Claim, ClusterError> {
    let _turn = instance.claiming.lock().await;
    let mut commands = instance.claims()?;
    let lease = instance.config.lease;
    let (epoch, steady, over) = {
        let standing = instance.standing.lock();
        let steady = standing.since.is_some_and(|since| since.elapsed() >= lease);
        let over = standing.leases.get(logic);
        let over = over.filter(|(_, seen)| steady && seen.elapsed() >= lease);
        let over = over.map(|(stored, _)| stored.clone()).unwrap_or_default();
        (standing.epoch.clone(), steady, over)
    };
    let answer = script::CLAIM
        .key(&instance.keys.state)
        .key(&instance.keys.singletons)
        .arg(&**logic)
        .arg(&instance.written)
        .arg(held.map(|token| token.to_string()).unwrap_or_default())
        .arg(epoch)
        .arg(u8::from(take && steady))
        .arg(over)
        .invoke_async(&mut commands)
        .await;
    let (token, holder, stored): (u64, String, String) =
        answer.map_err(|error| instance.failed("asking for a lease", &error))?;
    instance.standing.lock().saw(logic, stored);
    let holder = parse_instance(&holder);
    if holder.as_ref() == Some(&instance.id) {
        confirmed(instance, &mut commands).await?;
    }
    Ok(Claim { token, holder })
}

/// Waits until as many replicas have it as are asked for.
async fn confirmed(instance: &Instance, commands: &mut Commands) -> Result<(), ClusterError> {
    let config = &instance.config;
    if config.replicas == 0 {
        return Ok(());
    }
    // Claims of other modules wait behind it.
    let patience = (config.lease / 10).min(config.response_timeout / 2);
    let have: usize = redis::cmd("WAIT")
        .arg(config.replicas)
        .arg(patience.as_millis() as u64)
        .query_async(commands)
        .await
        .map_err(|error| instance.failed("WAIT", &error))?;
    if have < config.replicas {
        return Err(ClusterError::Unreachable(format!(
            "{have} of {} replicas have confirmed a lease",
            config.replicas
        )));
    }
    Ok(())
}

pub(super) async fn release(
    instance: &Instance,
    logic: &Name,
    token: u64,
) -> Result<(), ClusterError> {
    // Behind a claim that is under way.
    let _turn = instance.claiming.lock().await;
    let mut commands = instance.claims()?;
    script::RELEASE
        .key(&instance.keys.singletons)
        .arg(&**logic)
        .arg(token)
        .invoke_async(&mut commands)
        .await
        .map_err(|error| instance.failed("giving a lease back", &error))
}
