use axum::Router;
use axum::routing::MethodRouter;

/// Addresses and what answers at them. Routers are made from such lists only, so that a test can name every address
/// there is and say who may what there.
pub type Table<S> = Vec<(&'static str, MethodRouter<S>)>;

pub fn router<S: Clone + Send + Sync + 'static>(table: Table<S>) -> Router<S> {
    table
        .into_iter()
        .fold(Router::new(), |router, (path, route)| router.route(path, route))
}

/// The addresses of what every site has: sign-in, stylesheet and the like.
pub fn paths() -> Vec<String> {
    let own = crate::sign_in::paths().into_iter();
    own.chain(crate::assets::paths()).collect()
}
