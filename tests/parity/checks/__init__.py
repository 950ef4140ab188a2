"""What a golden folder is held against, group by group; each check is a function of a `Golden`."""

from parity.checks import contexts, images, packing, tables, training, vae, vision

GROUPS = (tables, packing, vae, vision, training, contexts, images)
CHECKS = {
    f"{group.__name__.rsplit('.', 1)[-1]}.{name.removeprefix('check_')}": check
    for group in GROUPS
    for name, check in vars(group).items()
    if name.startswith("check_")
}
