//! A `multipart/form-data` body: the fields of a message, and its file on the way to the disk.

use super::super::{
    Api,
    body::{Fields, Incoming},
    error::from_problem,
};
use crate::media::Arrived;
use multer::{Constraints, Multipart, SizeLimit};
use rookery_protocol::{ApiError, ErrorCode, UserId};

/// The part that holds the file.
const FILE: &str = "file";
/// The largest other part, in bytes.
const MAX_FIELD_BYTES: u64 = 16 << 10;
/// How many parts there may be.
const MAX_PARTS: usize = 16;
/// What a body may have besides its file: other parts, and the heads of all.
const MAX_REST_BYTES: u64 = 512 << 10;

/// Reads the fields, and the file if there is one, within the time that a file may take.
pub(super) async fn read(api: &Api, user: UserId, request: Incoming) -> Result<(Fields, Option<Arrived>), ApiError> {
    let late = || ApiError::new(ErrorCode::RequestTimeout, "The body did not arrive in time.");
    tokio::time::timeout(api.media.transfer_timeout(), parts(api, user, request)).await.map_err(|_| late())?
}

async fn parts(api: &Api, user: UserId, request: Incoming) -> Result<(Fields, Option<Arrived>), ApiError> {
    let boundary = multer::parse_boundary(request.content_type())
        .map_err(|_| malformed("The content type must name the boundary of the parts."))?;
    let largest = api.media.max_file_bytes();
    let sizes =
        SizeLimit::new().whole_stream(largest + MAX_REST_BYTES).per_field(MAX_FIELD_BYTES).for_field(FILE, largest);
    if request.declared_length().is_some_and(|length| length > largest + MAX_REST_BYTES) {
        return Err(too_large(largest));
    }
    let body = request.into_body();
    let mut parts = Multipart::with_constraints(body, boundary, Constraints::new().size_limit(sizes));
    let (mut fields, mut arrived, mut count) = (Fields::empty(), None, 0);
    let wrong = |error: multer::Error| from_multer(&error, largest);
    while let Some(mut part) = parts.next_field().await.map_err(wrong)? {
        count += 1;
        if count > MAX_PARTS {
            return Err(malformed("The body has too many parts."));
        }
        let Some(name) = part.name().map(str::to_owned) else {
            return Err(malformed("A part of the body has no name."));
        };
        if name != FILE {
            let content = part.bytes().await.map_err(wrong)?;
            fields.put(name, content.into());
            continue;
        }
        if arrived.is_some() {
            return Err(ApiError::field(FILE, "must not be given twice"));
        }
        let file_name = part.file_name().map(str::to_owned);
        let mut incoming = api.media.incoming(user).await.map_err(from_problem)?;
        while let Some(chunk) = part.chunk().await.map_err(wrong)? {
            incoming.write(&chunk).await.map_err(from_problem)?;
        }
        arrived = Some(incoming.finish(file_name).await.map_err(from_problem)?);
    }
    Ok((fields, arrived))
}

fn malformed(text: &'static str) -> ApiError {
    ApiError::new(ErrorCode::MalformedRequest, text)
}

fn too_large(limit: u64) -> ApiError {
    let text = format!("The file is larger than {limit} bytes.");
    ApiError::new(ErrorCode::PayloadTooLarge, text).naming(FILE, at_most(limit))
}

fn at_most(limit: u64) -> String {
    format!("must have at most {limit} bytes")
}

fn from_multer(error: &multer::Error, limit: u64) -> ApiError {
    match error {
        multer::Error::FieldSizeExceeded { field_name: Some(name), .. } if name != FILE => {
            let text = format!("A part of the body is larger than {MAX_FIELD_BYTES} bytes.");
            ApiError::new(ErrorCode::PayloadTooLarge, text).naming(name.clone(), at_most(MAX_FIELD_BYTES))
        }
        multer::Error::FieldSizeExceeded { .. } | multer::Error::StreamSizeExceeded { .. } => too_large(limit),
        multer::Error::StreamReadFailed(_) | multer::Error::IncompleteStream => malformed("The body broke off."),
        _ => malformed("The body is no valid multipart/form-data."),
    }
}
