"""What `compare` says of discrete pairs whose verdicts were worked out by hand before it saw them."""

import pytest

from ppl_models.factorization import compare
from tests.helpers.pairs.kept_back import KEPT


def test_there_are_twenty():
    assert len(KEPT) == 20


@pytest.mark.parametrize("name", KEPT)
def test_verdict_of_a_pair_that_was_kept_back(name):
    kept = KEPT[name]
    model, guide, args = kept.build()
    report = compare(model, guide, *args)
    assert {site: {*names} for site, names in report.missing.items() if names} == kept.missing, str(report)
    assert report.faithful is (not kept.missing), str(report)
