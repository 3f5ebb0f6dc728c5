//! Which methods a path has, for the `Allow` of a 405 (RFC 9110, 15.5.6). The specification knows them.

use super::openapi::Specification;
use std::{collections::BTreeSet, sync::LazyLock};
use utoipa::{
    OpenApi,
    openapi::path::{PathItem, Paths},
};
use warp::http::HeaderValue;

/// A path of the specification in its parts; what is in braces is anything. And its methods.
type Template = (Vec<String>, BTreeSet<&'static str>);

static TEMPLATES: LazyLock<Vec<Template>> = LazyLock::new(|| templates(&Specification::openapi().paths));

/// The methods of a path, as they stand in `Allow`; none when the specification does not have the path.
pub(super) fn allowed(path: &str) -> Option<HeaderValue> {
    allowed_by(&TEMPLATES, path)
}

fn allowed_by(templates: &[Template], path: &str) -> Option<HeaderValue> {
    let parts: Vec<_> = path.split('/').collect();
    let fits = |template: &&Template| {
        let (wanted, _) = template;
        let same = |(wanted, part): (&String, &&str)| wanted.starts_with('{') || wanted == part;
        wanted.len() == parts.len() && wanted.iter().zip(&parts).all(same)
    };
    let methods: BTreeSet<_> = templates.iter().filter(fits).flat_map(|(_, methods)| methods).copied().collect();
    let text = methods.into_iter().collect::<Vec<_>>().join(", ");
    (!text.is_empty()).then(|| HeaderValue::try_from(text).expect("methods are letters"))
}

fn templates(paths: &Paths) -> Vec<Template> {
    paths.paths.iter().map(|(path, item)| (path.split('/').map(str::to_owned).collect(), methods(item))).collect()
}

fn methods(item: &PathItem) -> BTreeSet<&'static str> {
    let all = [
        ("DELETE", item.delete.is_some()),
        ("GET", item.get.is_some()),
        // Answered as GET, without a body.
        ("HEAD", item.get.is_some()),
        ("PATCH", item.patch.is_some()),
        ("POST", item.post.is_some()),
        ("PUT", item.put.is_some()),
    ];
    all.into_iter().filter(|(_, has)| *has).map(|(method, _)| method).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_methods_of_all_that_it_fits() {
        let template = |path: &str, methods: &[&'static str]| {
            (path.split('/').map(str::to_owned).collect(), methods.iter().copied().collect())
        };
        let templates =
            [template("/a/{id}", &["DELETE"]), template("/a/list", &["GET", "HEAD"]), template("/a", &["POST"])];
        let allowed = |path| allowed_by(&templates, path);
        assert_eq!(allowed("/a/7").unwrap(), "DELETE");
        assert_eq!(allowed("/a/list").unwrap(), "DELETE, GET, HEAD");
        assert_eq!(allowed("/a").unwrap(), "POST");
        for path in ["", "/", "/a/b/c", "/b", "a"] {
            assert_eq!(allowed(path), None, "{path:?}");
        }
    }

    #[test]
    fn the_specification_is_understood() {
        assert_eq!(allowed("/api/whatsapp/messages/text").unwrap(), "POST");
        assert_eq!(allowed("/api/health").unwrap(), "GET, HEAD");
    }
}
