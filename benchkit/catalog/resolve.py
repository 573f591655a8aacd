"""A spec as a user types it, looked up among the installed plugins."""

from benchkit.catalog.discovery import Catalog, discover
from benchkit.catalog.spec import Kind, RawSpec, Spec, parse_params, prefix
from benchkit.errors import SpecError


def resolve(kind: Kind, text: str, catalog: Catalog | None = None) -> Spec:
    """Looks `text` up among the plugins and checks its parameters.

    Raises SpecError for an unknown name, parameter or value, PluginError where the plugin does not load.
    """
    raw = RawSpec.parse(text)
    provided = (catalog or discover()).find(kind, raw.name, raw.dist)
    cls = provided.load()
    if raw.version is not None and raw.version != cls.version:
        raise SpecError(
            f"{kind} '{raw.name}' is at version {cls.version} here, not {raw.version}: old results stay in the "
            f"registry, new ones are of '{raw.name}{f'@{cls.version}' if cls.version > 1 else ''}'"
        )
    params = parse_params(kind, raw, cls.Params)
    dist = f"{provided.plugin.dist} {provided.plugin.version}"
    return Spec(kind, raw.name, dist, cls, params, prefix(provided.plugin.dist) if provided.ambiguous else None)


def resolve_probe(text: str, catalog: Catalog | None = None) -> Spec:
    """A classifier, or for trait tasks a scorer: both stand in the same place of a cell. Raises as `resolve`."""
    catalog = catalog or discover()
    try:
        return resolve("classifier", text, catalog)
    except SpecError:
        if RawSpec.parse(text).name not in {p.name for p in catalog.provided("scorer")}:
            raise
        return resolve("scorer", text, catalog)
