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
    values = {"optim": {"lr": 0.1}, "sampling": {"num_timesteps": 3}, "buckets": [[1, 2, 3]]}
    assert renamed_keys.with_current_keys(values) == values


def test_no_key_is_old_and_new():
    assert not set(renamed_keys.RENAMED_KEYS) & set(renamed_keys.RENAMED_KEYS.values())


def test_a_section_moves_with_the_keys_inside_it():
    values = {"select": {"keep": 0.5, "floor": 2}, "sampling": {"select": None, "writing": {"words": 0.1, "limit": 9}}}
    assert renamed_keys.with_current_keys(values) == {
        "token_selection": {"keep": 0.5, "min_tokens": 2},
        "sampling": {"token_selection": None, "plan": {"cot_temperature": 0.1, "max_cot_tokens": 9}},
    }
