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

fn replay(seed: u64) -> String {
    format!("play it again: FANFARE_SIM_SEED={seed} cargo test -p testkit --test simulator")
}
