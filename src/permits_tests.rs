use super::*;
use tokio::runtime::Builder;

fn permits(places: u64, waiters: usize) -> Arc<Permits<1>> {
    Permits::new(Limits { places, reserved: [0], network: u64::MAX, waiters })
}

fn run<F: Future>(work: F) -> F::Output {
    Builder::new_current_thread().build().unwrap().block_on(work)
}

const ONE: Owner = Owner::new(1, 1);
const OTHER: Owner = Owner::new(2, 1);

#[test]
fn a_place_goes_on_to_the_one_that_waits() {
    run(async {
        let permits = permits(2, 9);
        let (first, _other) =
            (permits.acquire(ONE, 0).await.unwrap(), permits.acquire(ONE, 0).await.unwrap());
        let (second, third) = (permits.request(ONE, 0).unwrap(), permits.request(OTHER, 0).unwrap());
        assert!(permits.is_contended());
        drop(first);
        let Err(second) = second.now() else { panic!("another network holds none") };
        let third = third.granted().await.unwrap();
        assert_eq!(permits.figures(), (2, 1));
        drop(second);
        assert!(!permits.is_contended());
        drop(third);
        assert_eq!(permits.figures(), (1, 0));
    });
}

#[test]
fn a_place_that_is_unused_is_called_back() {
    run(async {
        let permits = permits(1, 9);
        let first = permits.acquire(ONE, 0).await.unwrap();
        let waiting = permits.request(OTHER, 0).unwrap();
        first.set_use(Use::Idle);
        first.called().await;
        drop(first);
        waiting.granted().await.unwrap();
    });
}

#[test]
fn one_that_has_to_go_is_told() {
    run(async {
        let permits = permits(1, 2);
        let _first = permits.acquire(ONE, 0).await.unwrap();
        let waiting = [permits.request(ONE, 0).unwrap(), permits.request(ONE, 0).unwrap()];
        assert!(permits.request(ONE, 0).is_err());
        let other = permits.request(OTHER, 0).unwrap();
        let [older, younger] = waiting;
        assert!(younger.granted().await.is_err());
        assert!(older.now().is_err() && other.now().is_err());
    });
}

#[test]
fn contention_is_announced() {
    run(async {
        let permits = permits(1, 2);
        let first = permits.acquire(ONE, 0).await.unwrap();
        let mut announced = std::pin::pin!(first.contention());
        assert!(
            std::future::poll_fn(|cx| std::task::Poll::Ready(announced.as_mut().poll(cx).is_pending())).await
        );
        let _waiting = permits.request(OTHER, 0).unwrap();
        announced.await;
    });
}
