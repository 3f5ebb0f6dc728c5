//! The routes of the media host, for the document. The media host answers them itself: it streams.

use super::route::{Body, Reply, Route, Run};
use super::verbs::post;

/// The routes of this module.
pub(super) const ROUTES: &[Route] = &[
    Route {
        body: Body::Bytes,
        reply: Reply::Json("Uploaded"),
        ..post("/mms/{type}/{name}", "keeps a medium; where it is", Run::MediaHost)
    },
    Route { method: "GET", reply: Reply::Bytes, ..post("/v/sim/{name}", "a medium, or a range of it", Run::MediaHost) },
    Route { method: "HEAD", reply: Reply::Bytes, ..post("/v/sim/{name}", "the size of a medium", Run::MediaHost) },
    Route { method: "DELETE", ..post("/v/sim/{name}", "forgets a medium", Run::MediaHost) },
];
