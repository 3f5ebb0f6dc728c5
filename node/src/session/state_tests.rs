//! What the state machine promises, whatever happens in whatever order.

use super::*;
use proptest::prelude::*;
use rookery_protocol::UserId;

const POLICY: Policy = Policy {
    pairing_rounds: 3,
    replaced_retry: Duration::from_secs(60),
    replaced_window: Duration::from_secs(600),
    restart_min: Duration::from_secs(1),
    restart_max: Duration::from_secs(300),
};

fn row(linked: bool) -> SessionRow {
    let device = linked.then(|| DeviceId::new("15550001", 1).unwrap());
    SessionRow { device, ..SessionRow::new(UserId::generate(), "test", Timestamp::from_secs(1_000)) }
}

fn run(state: &mut State, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
    let mut last = vec![];
    for (second, event) in (1_001..).zip(events) {
        last = state.apply(event, &POLICY, Timestamp::from_secs(second));
    }
    last
}

fn connected() -> Event {
    Event::Client(ClientEvent::Connected { push_name: Some("me".into()) })
}

#[test]
fn a_new_session_is_paired_and_works() {
    let mut state = State::new(row(false));
    assert_eq!(run(&mut state, [Event::Activated]), [Effect::CancelRetry, Effect::StartClient]);
    let qr = ClientEvent::Qr { code: "qr".into(), valid_for: Duration::from_secs(60) };
    run(&mut state, [Event::Client(qr)]);
    assert_eq!(state.status(), SessionStatus::ScanQrCode);
    assert_eq!(state.qr.as_ref().unwrap().expires_at, Timestamp::from_secs(1_061));
    let paired = ClientEvent::Paired { device: DeviceId::new("15550001", 4).unwrap(), lid: None };
    run(&mut state, [Event::Client(paired), connected()]);
    assert_eq!(state.status(), SessionStatus::Working);
    assert!(state.qr.is_none());
    assert_eq!(state.row.statuses.len(), 3);
}

#[test]
fn pairing_that_nobody_finishes_ends() {
    let mut state = State::new(row(false));
    run(&mut state, [Event::Activated]);
    assert_eq!(run(&mut state, [Event::Client(ClientEvent::QrExhausted)]), [Effect::StartClient]);
    run(&mut state, [Event::Client(ClientEvent::QrExhausted), Event::Client(ClientEvent::QrExhausted)]);
    assert_eq!(state.status(), SessionStatus::Failed);
    assert!(!state.row.wanted);
    assert_eq!(run(&mut state, [Event::ConnectRequested]), [Effect::CancelRetry, Effect::StartClient]);
}

#[test]
fn a_stolen_connection_is_taken_back_once() {
    let mut state = State::new(row(true));
    run(&mut state, [Event::Activated, connected()]);
    let effects = run(&mut state, [Event::Client(ClientEvent::Replaced)]);
    assert_eq!(effects, [Effect::StopClient, Effect::Retry(Duration::from_secs(60))]);
    assert_eq!(run(&mut state, [Event::RetryDue]), [Effect::StartClient]);
    let effects = run(&mut state, [connected(), Event::Client(ClientEvent::Replaced)]);
    assert_eq!(effects, [Effect::CancelRetry, Effect::StopClient]);
    assert_eq!(state.status(), SessionStatus::Failed);
}

#[test]
fn a_user_who_disconnects_is_not_overruled_by_the_client() {
    let mut state = State::new(row(true));
    run(&mut state, [Event::Activated, connected(), Event::DisconnectRequested]);
    assert_eq!(state.status(), SessionStatus::Stopped);
    let late = [connected(), Event::Client(ClientEvent::Ended), Event::RetryDue];
    assert_eq!(run(&mut state, late), []);
    assert_eq!(state.status(), SessionStatus::Stopped);
    assert!(state.row.device.is_some(), "the link stays");
}

#[test]
fn restarts_of_a_client_back_off_to_a_limit() {
    let mut state = State::new(row(true));
    run(&mut state, [Event::Activated]);
    let mut before = Duration::ZERO;
    for _ in 0..40 {
        let effects = run(&mut state, [Event::Client(ClientEvent::Ended)]);
        let Effect::Retry(delay) = effects[1] else { panic!("no retry in {effects:?}") };
        assert!(delay >= before && delay <= POLICY.restart_max);
        before = delay;
    }
    assert_eq!(before, POLICY.restart_max);
}

fn any_event() -> impl Strategy<Value = Event> {
    let client = prop_oneof![
        Just(ClientEvent::Qr { code: "q".into(), valid_for: Duration::from_secs(20) }),
        Just(ClientEvent::QrExhausted),
        Just(ClientEvent::PasskeyRequired),
        Just(ClientEvent::Paired { device: DeviceId::new("15550001", 2).unwrap(), lid: None }),
        Just(ClientEvent::PairFailed("x".into())),
        Just(ClientEvent::Connected { push_name: None }),
        Just(ClientEvent::PushName("n".into())),
        Just(ClientEvent::Disconnected("d".into())),
        Just(ClientEvent::Unreachable("u".into())),
        Just(ClientEvent::LoggedOut("l".into())),
        Just(ClientEvent::Replaced),
        Just(ClientEvent::Banned { lasts: Duration::from_secs(5), why: "b".into() }),
        Just(ClientEvent::Refused("r".into())),
        Just(ClientEvent::Ended),
    ];
    prop_oneof![
        Just(Event::Activated),
        Just(Event::ConnectRequested),
        Just(Event::DisconnectRequested),
        Just(Event::DeviceRemovalRequested),
        Just(Event::RetryDue),
        client.prop_map(Event::Client),
    ]
}

proptest! {
    #[test]
    fn invariants_hold_after_every_event(linked: bool, events in prop::collection::vec(any_event(), 1..60)) {
        let mut state = State::new(row(linked));
        for (second, event) in (1_001..).zip(events) {
            let effects = state.apply(event, &POLICY, Timestamp::from_secs(second));
            let starts = effects.contains(&Effect::StartClient);
            prop_assert!(!starts || state.row.wanted, "a client is started that nobody wants");
            prop_assert!((1..=3).contains(&state.row.statuses.len()));
            prop_assert!(state.qr.is_none() || state.status() == SessionStatus::ScanQrCode || state.row.wanted);
            prop_assert!(state.status() != SessionStatus::LoggedOut || state.row.device.is_none() || state.row.wanted);
            prop_assert!(!effects.contains(&Effect::ClearKeys) || state.row.device.is_none());
            let repeats = state.row.statuses.windows(2).any(|pair| pair[0].status == pair[1].status);
            prop_assert!(!repeats, "a status follows itself");
        }
    }
}
