import numpy as np
import pytest

import tinyseg as ts
from tinyseg.prediction import predict, predict_logits


@pytest.fixture(scope="module")
def model():
    return ts.models.build("sdunet", width=4, levels=3, num_classes=1)


def images(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def test_sizes_that_fit_are_the_model_itself(model):
    x = images((3, 1, 8, 12))
    expected = model.eval()(x).data
    np.testing.assert_array_equal(predict_logits(model, x, batch_size=3), expected)
    np.testing.assert_allclose(predict(model, x), 1 / (1 + np.exp(-expected)), rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 7, 9), (2, 13, 8), (1, 1, 6), (1, 3, 1)])
def test_any_size_comes_back_at_its_own_size(model, shape):
    y = predict(model, images(shape))
    assert y.shape == (shape[0], 1, *shape[1:]) and np.isfinite(y).all()


def test_padding_mirrors_the_image(model):
    x = images((1, 1, 10, 11))
    padded = np.pad(x, ((0, 0), (0, 0), (0, 2), (0, 1)), mode="reflect")
    np.testing.assert_array_equal(predict_logits(model, x), model.eval()(padded).data[:, :, :10, :11])


def test_batch_size_does_not_matter(model):
    x = images((5, 8, 8))
    np.testing.assert_allclose(predict(model, x, 1), predict(model, x, 4), rtol=1e-4)


@pytest.mark.parametrize("mode", [True, False])
def test_the_mode_is_left_as_it_was_even_after_an_error(model, mode):
    model.train(mode)
    predict(model, images((1, 8, 8)))
    assert model.training == mode
    with pytest.raises(ValueError, match="takes images of shape"):
        predict(model, images((1, 2, 8, 8)))
    assert model.training == mode


def test_several_classes_add_up_to_one():
    model = ts.models.build("sdunet", width=4, levels=2, num_classes=3)
    np.testing.assert_allclose(predict(model, images((1, 5, 6))).sum(axis=1), 1, rtol=1e-5)


def test_a_frozen_part_stays_frozen(model):
    model.train()
    model.encoder[0].eval()
    predict(model, images((1, 8, 8)))
    assert model.decoder[0].training and not model.encoder[0].training
