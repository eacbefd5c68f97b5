//! Runs of the simulator. `FANFARE_SIM_SEEDS` says how many (default 60), `FANFARE_SIM_SEED` plays one again.

#[test]
fn every_event_arrives_once_or_its_socket_begins_anew() {
    let read = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match read("FANFARE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..read("FANFARE_SIM_SEEDS").unwrap_or(60),
    };
    let mut recovered = 0;
    for seed in seeds.clone() {
        let outcome = std::panic::catch_unwind(|| testkit::simulator::run(seed));
        match outcome {
            Ok(Ok(summary)) => recovered += summary.recovered,
            Ok(Err(problem)) => panic!("{problem}\n{}", replay(seed)),
            Err(_) => panic!("seed {seed} panicked\n{}", replay(seed)),
        }
    }
    if seeds.end - seeds.start >= 60 {
        assert!(recovered > 300, "the runs have become idle");
    }
}

#[test]
fn every_event_arrives_once_although_processes_crash() {
    let read = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match read("FANFARE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..10 * read("FANFARE_SIM_SEEDS").unwrap_or(60),
    };
    let (mut crashes, mut restored, mut delivered, mut released) = (0, 0, 0, 0);
    for seed in seeds.clone() {
        let outcome = std::panic::catch_unwind(|| testkit::simulator::crash::run(seed));
        match outcome {
            Ok(Ok(summary)) => {
                crashes += summary.crashes;
                restored += summary.restored;
                delivered += summary.delivered;
                released += summary.released;
            }
            Ok(Err(problem)) => panic!("{problem}\n{}", replay(seed)),
            Err(_) => panic!("seed {seed} panicked\n{}", replay(seed)),
        }
    }
    if seeds.end - seeds.start >= 600 {
        let idle = (crashes, restored, delivered, released);
        assert!(
            crashes > 1_000 && restored > 1_000 && delivered > 20_000 && released > 300,
            "the runs have become idle: {idle:?}"
        );
    }
}

fn replay(seed: u64) -> String {
    format!("play it again: FANFARE_SIM_SEED={seed} cargo test -p testkit --test simulator")
}
