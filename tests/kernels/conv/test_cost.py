"""The cost model ranks as measurements do."""

from tinycnn.kernels.conv import cost


def test_long_runs_are_cheaper_than_short_ones():
    assert cost.copy_time(1000, 5) > 3 * cost.copy_time(1000, 50)
    assert cost.add_time(1000, 5) > 3 * cost.add_time(1000, 50)
    assert cost.copy_time(0, 0) == cost.add_time(0, 0) == 0


def test_narrow_products_run_below_the_peak():
    def rate(K, N):
        return 2 * K * N / cost.product_time(1, K, N)

    assert rate(10_000, 10_000) > 0.99 * cost.PEAK
    # GFLOP/s measured on one core: 113 at K = 144, N = 16 and 63 at K = 75, N = 6
    assert 80 < rate(144, 16) < 130
    assert 50 < rate(75, 6) < 80
