//! What every cluster promises, over one server: Redis, and Valkey.

mod support;

use gobroke_core::cluster::conformance;

use self::support::{Program, Redis};

macro_rules! checks {
    ($($check:ident($($seed:literal)?)),* $(,)?) => {
        checks!(over_redis Redis: $($check($($seed)?)),*);
        checks!(over_valkey Valkey: $($check($($seed)?)),*);
    };
    ($over:ident $program:ident: $($check:ident($($seed:literal)?)),*) => {
        mod $over {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $check() {
                    let setup = Redis::start_with(Program::$program).await;
                    conformance::$check(&setup $(, $seed)?).await;
                }
            )*
        }
    };
}

checks! {
    messages_arrive_once_and_in_order(1),
    only_instances_with_members_get_a_groups_messages(),
    joins_are_ordered_with_the_messages_around(),
    a_client_that_moved_gets_its_messages_once(),
    what_is_for_nobody_goes_nowhere_and_ends(),
    what_does_not_arrive_is_counted_exactly(1),
    listings_cover_all_instances_in_pages(),
    every_instance_knows_the_same_of_a_client(),
    a_reconnect_elsewhere_replaces_the_older_session(),
    an_instance_that_stops_is_gone_at_once(),
    a_dead_instance_takes_its_clients_with_it(),
    what_is_revoked_is_revoked_everywhere(),
    an_outage_is_made_up_for(),
    lost_records_are_written_again(),
    random_faults_are_accounted_for(1),
    a_module_on_a_named_instance_gets_what_is_for_it_in_order(),
    a_module_runs_once_and_is_handed_over(),
    a_dead_holder_is_followed_by_one_with_a_larger_token(),
}
