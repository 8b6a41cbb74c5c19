use super::*;
use crate::cluster::Incarnation;

fn info(id: ClientId) -> ClientInfo {
    ClientInfo {
        id,
        instance: "one".into(),
        endpoint: "test".into(),
        remote: None,
        connected_at: 1,
        last_message: 1,
        metadata: Arc::default(),
        groups: Vec::new(),
    }
}

fn changes(ledger: &mut Ledger) -> (Changes, Vec<u64>) {
    match ledger.next(|_| true) {
        Next::Changes(changes, epochs) => (*changes, epochs),
        Next::Nothing => (Changes::default(), Vec::new()),
        Next::Whole => panic!("everything is to be written"),
    }
}

fn here(number: u64) -> Registered {
    Registered::Here {
        registration: Registration::new(number, 0),
        replaced: None,
    }
}

#[test]
fn what_changes_before_it_is_written_is_written_once() {
    let (mut ledger, id) = (Ledger::default(), ClientId::new());
    ledger.came(info(id), 1);
    ledger.moved(id, 1, &"room".into(), true);
    ledger.heard(vec![(id, 9)]);
    let (first, epochs) = changes(&mut ledger);
    assert_eq!((first.came.len(), epochs), (1, vec![1]));
    assert_eq!(first.came[0].info.groups, ["room"]);
    assert_eq!(first.came[0].info.last_message, 9);
    // While it is written, its registration is not known: what changes waits for that.
    ledger.moved(id, 1, &"room".into(), false);
    assert_eq!(changes(&mut ledger).0, Changes::default());
    ledger.registered(id, 1, &here(5));
    let (second, _) = changes(&mut ledger);
    assert_eq!(second.changed.len(), 1);
    assert_eq!(second.changed[0].registration, Registration::new(5, 0));
    assert_eq!(second.changed[0].left, ["room"]);
    assert_eq!(changes(&mut ledger).0, Changes::default());
}

#[test]
fn one_that_goes_before_it_is_written_is_not_and_one_that_goes_meanwhile_is_removed() {
    let (mut ledger, id) = (Ledger::default(), ClientId::new());
    ledger.came(info(id), 1);
    ledger.went(id, 1);
    assert_eq!(changes(&mut ledger).0, Changes::default());
    ledger.came(info(id), 2);
    changes(&mut ledger);
    ledger.went(id, 2);
    assert_eq!(ledger.registered(id, 2, &here(7)), Told::default());
    assert_eq!(changes(&mut ledger).0.went, [(id, Registration::new(7, 0))]);
    assert!(ledger.here.is_empty());
}

#[test]
fn the_end_of_an_older_session_leaves_the_newer_one_alone() {
    let (mut ledger, id) = (Ledger::default(), ClientId::new());
    ledger.came(info(id), 1);
    changes(&mut ledger);
    ledger.came(info(id), 2);
    ledger.went(id, 1);
    ledger.registered(id, 1, &here(7));
    let (next, epochs) = changes(&mut ledger);
    assert_eq!((next.came.len(), epochs, next.went.len()), (1, vec![2], 0));
    assert_eq!(next.came[0].registration, None, "a newer one is drawn");
}

#[test]
fn of_two_registrations_the_newer_wins_whatever_is_heard_first() {
    let (mut ledger, id) = (Ledger::default(), ClientId::new());
    let there = InstanceId::new("two", Incarnation::new(1, 1));
    ledger.came(info(id), 1);
    changes(&mut ledger);
    assert_eq!(
        ledger.replaced(id, Registration::new(6, 0)),
        None,
        "not known yet"
    );
    assert!(ledger.registered(id, 1, &here(5)).replaced);
    ledger.went(id, 1);
    assert_eq!(
        changes(&mut ledger).0,
        Changes::default(),
        "it is not its own to remove"
    );

    ledger.came(info(id), 2);
    changes(&mut ledger);
    let answer = Registered::Here {
        registration: Registration::new(8, 0),
        replaced: Some(there.clone()),
    };
    let told = ledger.registered(id, 2, &answer);
    assert_eq!(told.elsewhere, Some((there, Registration::new(8, 0))));
    assert_eq!(ledger.replaced(id, Registration::new(7, 0)), None, "older");
    assert_eq!(ledger.replaced(id, Registration::new(9, 0)), Some(2));
}

#[test]
fn a_whole_record_presents_registrations_unchanged_and_misses_nothing_that_changes_meanwhile() {
    let mut ledger = Ledger::default();
    let [stays, goes, comes, replaced] = [(); 4].map(|()| ClientId::new());
    for (number, id) in [stays, goes, replaced].into_iter().enumerate() {
        ledger.came(info(id), number as u64);
    }
    changes(&mut ledger);
    for (number, id) in [stays, goes, replaced].into_iter().enumerate() {
        ledger.registered(id, number as u64, &here(10 + number as u64));
    }
    assert_eq!(ledger.replaced(replaced, Registration::new(20, 0)), Some(2));
    ledger.write_all();
    assert!(matches!(ledger.next(|_| true), Next::Whole));
    let snapshot = vec![
        (info(stays), 0),
        (info(goes), 1),
        (info(comes), 3),
        (info(replaced), 2),
    ];
    // While the router is asked: one goes, one comes, one changes.
    ledger.went(goes, 1);
    ledger.came(info(comes), 3);
    ledger.moved(stays, 0, &"room".into(), true);
    let (record, epochs) = ledger.whole(snapshot, vec!["room".into()]);
    assert_eq!((record.clients.len(), epochs), (1, vec![0]));
    assert_eq!(
        record.clients[0].registration,
        Some(Registration::new(10, 0))
    );
    ledger.registered(stays, 0, &here(10));
    let (next, epochs) = changes(&mut ledger);
    assert_eq!((next.came.len(), epochs), (1, vec![3]));
    assert_eq!(next.changed[0].joined, ["room"]);
    assert!(!ledger.here.contains_key(&goes) || next.went.is_empty());
}

#[test]
fn what_cannot_be_told_for_long_is_bounded() {
    let mut ledger = Ledger::default();
    for number in 0..40_000_u64 {
        ledger.group_changed(&format!("group-{number}").into());
    }
    assert!(ledger.groups.len() <= REMEMBERED);
    assert!(matches!(ledger.next(|_| true), Next::Whole));
}
