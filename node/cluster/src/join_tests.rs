use super::*;

const ME: Incarnation = Incarnation(7);

fn at(millis: u64) -> Moment {
    Moment::from_nanos(millis * 1_000_000)
}

fn row(incarnation: u64, seq: u64, status: Status) -> Member {
    Member {
        node: "a".parse().unwrap(),
        incarnation: Incarnation(incarnation),
        seq,
        status,
        weight: 100,
        link_address: String::new(),
        api_address: String::new(),
        protocol: 1,
    }
}

fn join() -> Join {
    Join::new("a".parse().unwrap(), ME, Timings::default())
}

#[test]
fn no_row_or_a_dead_one_is_taken() {
    let mut join = join();
    assert_eq!(join.row(None, at(0)), JoinStep::Take(None));
    join.sent(at(10));
    assert_eq!(join.row(Some(&row(3, 9, Status::Dead)), at(20)), JoinStep::Take(Some(Incarnation(3))));
    join.sent(at(30));
    let joined = JoinStep::Joined { seq: 0, sent: at(10), ended: Some(Incarnation(3)) };
    assert_eq!(join.row(Some(&row(7, 0, Status::Active)), at(40)), joined);
}

#[test]
fn a_row_that_stands_still_is_declared_dead_after_the_time_of_any_observer() {
    let mut join = join();
    let old = row(3, 9, Status::Active);
    assert_eq!(join.row(Some(&old), at(0)), JoinStep::Watch(at(1_000)));
    let late = row(3, 10, Status::Active);
    assert_eq!(join.row(Some(&late), at(1_000)), JoinStep::Watch(at(2_000)), "a renewal that was on its way");
    assert_eq!(join.row(Some(&late), at(9_500)), JoinStep::Watch(at(10_000)));
    let JoinStep::Declare(death) = join.row(Some(&late), at(10_000)) else { panic!("not declared") };
    assert_eq!((death.incarnation, death.seq), (Incarnation(3), 10));
    assert_eq!(join.row(Some(&row(3, 10, Status::Dead)), at(10_050)), JoinStep::Take(Some(Incarnation(3))));
}

#[test]
fn a_running_process_of_the_same_name_refuses_the_start() {
    for second in [row(3, 11, Status::Draining), row(4, 0, Status::Active)] {
        let mut join = join();
        join.row(Some(&row(3, 9, Status::Active)), at(0));
        join.row(Some(&row(3, 10, Status::Active)), at(1_000));
        let JoinStep::Refuse(error) = join.row(Some(&second), at(2_000)) else { panic!("not refused") };
        assert!(error.to_string().starts_with("another process runs as node a (incarnation "), "{error}");
    }
}

#[test]
fn a_node_given_up_while_it_joined_does_not_start() {
    let mut join = join();
    join.row(None, at(0));
    join.sent(at(0));
    let step = join.row(Some(&row(7, 0, Status::Dead)), at(20_000));
    assert_eq!(step, JoinStep::Refuse(JoinError::DeclaredDead("a".parse().unwrap())));
}
