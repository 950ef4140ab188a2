"""Config keys of earlier versions, in a config that was stored with weights."""

from macro.utils import renamed_keys


def test_a_stored_config_gets_the_keys_of_today():
    for old, new in renamed_keys.RENAMED_KEYS.items():
        values = 1
        for name in reversed(old.split(".")):
            values = {name: values}
        found = renamed_keys.with_current_keys(values | {"seed": 3})
        assert found["seed"] == 3 and renamed_keys.explain(old)
        if not new.startswith("removed: "):
            for name in new.split("."):
                found = found[name]
            assert found == 1


def test_what_is_not_in_the_table_stays_as_it_is():
    values = {"optim": {"lr": 0.1}, "sampling": {"steps": 3, "guidance": "none"}, "buckets": [[1, 2, 3]]}
    assert renamed_keys.with_current_keys(values) == values


def test_no_key_is_old_and_new():
    assert not set(renamed_keys.RENAMED_KEYS) & set(renamed_keys.RENAMED_KEYS.values())
