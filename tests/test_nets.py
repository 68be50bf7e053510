"""Layers against NumPy, and how networks name, order and size their parts."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tiny

from common.data.spaces import matching_keys
from common.nn.layers import (
    Conv,
    ConvTranspose,
    Dense,
    LayerNorm,
    Module,
    NoNorm,
    activation,
    glorot,
    make_norm,
)
from dreamerv2.agent.nets import MLP, Decoder, Encoder
from dreamerv2.agent.pixels import ImageBernoulli, ImageNormal, PixelBounds, PixelStats, pool
from dreamerv2.agent.precision import Precision

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def fill(layer):
    """Random numbers in every variable, so that biases and scales count."""
    for variable in layer.variables:
        variable.assign(normal(*variable.shape))
    return layer


def box(*shape, dtype=np.float32):
    return gymnasium.spaces.Box(0, 255 if dtype == np.uint8 else 1, shape, dtype)


# Layers


@pytest.mark.parametrize("lead", [(4,), (2, 3), (2, 3, 2)])
def test_dense_is_a_matrix_product_over_the_last_axis(lead):
    layer, x = fill(Dense(5, 3, tf.float32, RNG)), normal(*lead, 5)
    expected = x @ layer.kernel.numpy() + layer.bias.numpy()
    np.testing.assert_allclose(layer(tf.constant(x)), expected, rtol=1e-4, atol=1e-5)


# Input size and kernel; small outputs are computed in another way than large ones.
CONVOLVED = [(9, 3), (9, 4), (6, 4), (4, 4), (3, 3)]


@pytest.mark.parametrize("inner, size", CONVOLVED)
def test_a_convolution_sees_every_second_window(inner, size):
    layer, x = fill(Conv(2, 3, size, tf.float32, RNG)), normal(2, inner, inner, 2)
    kernel, out = layer.kernel.numpy(), np.asarray(layer(tf.constant(x)))
    places = (inner - size) // 2 + 1
    assert out.shape == (2, places, places, 3)
    for i in range(places):
        for j in range(places):
            window = x[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size]
            expected = np.einsum("bijc,ijcd->bd", window, kernel) + layer.bias.numpy()
            np.testing.assert_allclose(out[:, i, j], expected, rtol=1e-4, atol=1e-4)


def assert_same_gradients(layer, x, plain):
    """Gradients of a weighted sum of `layer(x)` and of `plain(x)` to input, kernel and bias."""
    weights = tf.constant(normal(*plain(x).shape))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        ours, theirs = (tf.reduce_sum(weights * f(x)) for f in (layer, plain))
    sources = [x, layer.kernel, layer.bias]
    for a, b in zip(tape.gradient(ours, sources), tape.gradient(theirs, sources), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("inner, size", CONVOLVED)
def test_a_convolution_has_the_gradients_of_tensorflows(inner, size):
    layer, x = fill(Conv(2, 3, size, tf.float32, RNG)), tf.constant(normal(2, inner, inner, 2))
    assert_same_gradients(
        layer, x, lambda x: tf.nn.conv2d(x, layer.kernel, 2, "VALID") + layer.bias
    )


def test_a_result_that_is_known_has_the_gradients_of_computing_it_again():
    layer, x = fill(Dense(5, 3, tf.float32, RNG)), tf.constant(normal(4, 5))
    known = layer(x)
    np.testing.assert_array_equal(layer.replay(x, known), known)
    assert_same_gradients(layer, x, lambda x: layer.replay(x, known))


# Input size, input and output channels, kernel: what each way of computing it is used for.
TRANSPOSED = [(1, 6, 5, 5), (5, 4, 3, 5), (5, 4, 3, 6), (5, 4, 1, 6), (4, 3, 2, 4), (3, 4, 12, 6)]


@pytest.mark.parametrize("inner, inputs, depth, size", TRANSPOSED)
def test_a_transposed_convolution_paints_its_kernel_at_every_second_place(
    inner, inputs, depth, size
):
    layer = fill(ConvTranspose(inputs, depth, size, tf.float32, RNG))
    x, kernel = normal(2, inner, inner, inputs), layer.kernel.numpy()
    outer = (inner - 1) * 2 + size
    expected = np.zeros((2, outer, outer, depth))
    for i in range(inner):
        for j in range(inner):
            painted = np.einsum("bc,ijdc->bijd", x[:, i, j], kernel)
            expected[:, 2 * i : 2 * i + size, 2 * j : 2 * j + size] += painted
    expected += layer.bias.numpy()
    np.testing.assert_allclose(layer(tf.constant(x)), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("inner, inputs, depth, size", TRANSPOSED)
def test_a_transposed_convolution_has_the_gradients_of_tensorflows(inner, inputs, depth, size):
    layer = fill(ConvTranspose(inputs, depth, size, tf.float32, RNG))
    outer = (inner - 1) * 2 + size
    shape = [2, outer, outer, depth]
    assert_same_gradients(
        layer,
        tf.constant(normal(2, inner, inner, inputs)),
        lambda x: tf.nn.conv2d_transpose(x, layer.kernel, shape, 2, "VALID") + layer.bias,
    )


def test_layer_norm_standardises_the_last_axis_with_epsilon_one_thousandth():
    layer, x = fill(LayerNorm(6)), normal(2, 3, 6) * 0.05
    centered = x - x.mean(-1, keepdims=True)
    expected = centered / np.sqrt(x.var(-1, keepdims=True) + 1e-3)
    expected = expected * layer.gamma.numpy() + layer.beta.numpy()
    np.testing.assert_allclose(layer(tf.constant(x)), expected, rtol=1e-4, atol=1e-5)


def test_layer_norm_works_in_float32_and_returns_what_it_was_given():
    layer, x = LayerNorm(512), normal(4, 512) * 100 + 3000
    half = tf.constant(x, tf.float16)
    out = layer(half)
    assert out.dtype == tf.float16
    exact = np.asarray(half, np.float64)
    exact = (exact - exact.mean(-1, keepdims=True)) / exact.std(-1, keepdims=True)
    np.testing.assert_allclose(out, exact, atol=5e-3)
    assert (
        np.isnan(LayerNorm(512, tf.float16)(half)).any()
        or abs(np.asarray(LayerNorm(512, tf.float16)(half), np.float64) - exact).max() > 5e-3
    ), "this input would not have told the difference"


def test_norms_by_name():
    assert isinstance(make_norm("none", 3, tf.float32), NoNorm)
    assert isinstance(make_norm("layer", 3, tf.float32), LayerNorm)
    with pytest.raises(ValueError, match="norm: got 'batch', expected none or layer"):
        make_norm("batch", 3, tf.float32)


@pytest.mark.parametrize("shape, fan", [((200, 300), 500), ((4, 4, 20, 30), 16 * 50)])
def test_kernels_start_glorot_uniform(shape, fan):
    kernel, limit = glorot(RNG, shape).numpy(), np.sqrt(6 / fan)
    assert 0.99 * limit < abs(kernel).max() <= limit
    np.testing.assert_allclose(kernel.std(), limit / np.sqrt(3), rtol=0.02)


def test_activations_by_name():
    x = tf.constant([-2.0, 0.0, 3.0])
    softplus = np.log1p(np.exp(x))
    np.testing.assert_allclose(activation("mish")(x), x * np.tanh(softplus), rtol=1e-5)
    np.testing.assert_allclose(activation("elu")(x), [np.exp(-2) - 1, 0, 3], rtol=1e-5)
    np.testing.assert_array_equal(activation("none")(x), x)
    np.testing.assert_array_equal(activation("square")(x), [4, 0, 9])
    with pytest.raises(ValueError, match="act: got 'ell'"):
        activation("ell")


def test_variables_are_named_by_attribute_own_first_then_modules_in_order():
    class Tree(Module):
        def __init__(self):
            self.zebra = Dense(1, 1, tf.float32, RNG)
            self.layers = {"b": LayerNorm(1), "a": LayerNorm(1)}
            self.own = tf.Variable(0.0)

    names = list(Tree().named_variables("top/"))
    assert names == [
        "top/own",
        "top/a/gamma",
        "top/a/beta",
        "top/b/gamma",
        "top/b/beta",
        "top/zebra/kernel",
        "top/zebra/bias",
    ]


# Networks


OBS = {
    "speed": box(3),
    "left": box(64, 64, 1, dtype=np.uint8),
    "reward": box(),
    "angle": box(2),
    "right": box(64, 64, 3, dtype=np.uint8),
}


def encoder(precision=32, obs=OBS, **changes):
    config = tiny.config(**changes).encoder
    return Encoder(obs, config, Precision(precision), RNG)


def decoder(precision=32, inputs=7, obs=OBS, **changes):
    config = tiny.config(**changes).decoder
    return Decoder(obs, inputs, config, Precision(precision), RNG)


def observations(*lead):
    return {
        key: tf.constant(normal(*lead, *space.shape)) for key, space in OBS.items() if space.shape
    }


def test_keys_match_by_pattern_and_rank_in_the_order_of_the_space():
    assert list(matching_keys(OBS, ".*", 1)) == ["speed", "angle"]
    assert matching_keys(OBS, ".*", 3) == {"left": (64, 64, 1), "right": (64, 64, 3)}
    assert list(matching_keys(OBS, "ri", 3)) == ["right"], "as re.match: from the start"
    assert not matching_keys(OBS, "$^", 3)
    assert not matching_keys({"log_speed": OBS["speed"]}, ".*", 1), "stored, and in no batch"


def test_an_encoder_puts_images_before_vectors():
    whole, data = encoder(), observations(2)
    embed = np.asarray(whole(data))
    assert embed.shape == (2, whole.embed_size) == (2, 2 * 2 * 8 + 6)
    same = np.asarray(whole(data | {"angle": data["angle"] + 1})) == embed
    assert same[:, :-6].all() and not same[:, -6:].all()


@pytest.mark.parametrize(
    "layer, keys", [("conv0", ("left", "right")), ("dense0", ("speed", "angle"))]
)
def test_keys_of_a_kind_are_concatenated_in_the_order_of_the_space(layer, keys):
    whole, data = encoder(), observations(2)
    first = OBS[keys[0]].shape[-1]
    kernel = whole.layers[layer].kernel.numpy()
    kernel[..., first:, :] = 0
    whole.layers[layer].kernel.assign(kernel)
    embed = np.asarray(whole(data))
    for key, seen in zip(keys, (True, False), strict=True):
        assert (np.asarray(whole(data | {key: data[key] + 1})) != embed).any() == seen, key


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_networks_treat_every_row_of_a_sequence_alike(norm):
    whole = encoder(encoder__norm=norm, encoder__cnn_depth=2)
    data = observations(2, 3)
    together = np.asarray(whole(data))
    assert together.shape == (2, 3, whole.embed_size)
    apart = [
        [whole({k: v[b, t][None] for k, v in data.items()})[0] for t in range(3)] for b in (0, 1)
    ]
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-5)


def test_a_decoder_predicts_every_key_in_its_shape():
    dists = decoder()(tf.constant(normal(2, 3, 7)))
    shapes = {key: tuple(dist.mode().shape) for key, dist in dists.items()}
    assert shapes == {
        "left": (2, 3, 64, 64, 1),
        "right": (2, 3, 64, 64, 3),
        "speed": (2, 3, 3),
        "angle": (2, 3, 2),
    }
    data = observations(2, 3)
    for key, dist in dists.items():
        assert dist.log_prob(data[key]).shape == (2, 3), key


def test_a_decoder_starts_with_a_linear_layer_and_ends_with_one():
    whole = decoder(decoder__act="relu", decoder__norm="layer", decoder__cnn_depth=2)
    names = list(whole.layers)
    assert [name for name in names if "norm" in name and "conv" in name] == [
        "convnorm0",
        "convnorm1",
        "convnorm2",
    ]
    assert whole.layers["convin"].kernel.shape == (7, 64)
    assert whole.layers["conv3"].kernel.shape == (6, 6, 4, 2)
    image = whole(tf.constant(normal(4, 7)))["right"].mode().numpy()
    assert image.min() < 0 < image.max(), "a last layer with relu has no negative pixels"


def test_norms_of_vector_layers_are_named_as_in_files_of_the_reference():
    names = [name for name in encoder(encoder__norm="layer").layers if name.startswith("dense")]
    assert names == ["dense0", "densenorm0"]
    critic = MLP(4, [], tiny.config(critic__norm="layer").critic, tf.float32, tf.float32, RNG)
    assert list(critic.layers) == ["dense0", "norm0"]


@pytest.mark.parametrize("precision", [32, 16, "bfloat16"])
def test_variables_are_float32_and_outputs_have_the_compute_dtype(precision):
    dtype = Precision(precision).compute
    parts = [encoder(precision), decoder(precision)]
    assert {v.dtype for part in parts for v in part.variables} == {tf.float32}
    assert parts[0](observations(2)).dtype == dtype
    for dist in parts[1](tf.constant(normal(2, 7))).values():
        assert dist.mode().dtype == tf.float32
    data = observations(2)
    for key, dist in parts[1](tf.constant(normal(2, 7))).items():
        assert dist.log_prob(data[key]).dtype == tf.float32, key


@pytest.mark.parametrize(
    "build, match",
    [
        (lambda: encoder(encoder__cnn_keys="$^", encoder__mlp_keys="$^"), "match none of the obs"),
        (lambda: encoder(obs={"a": box(64, 64, 1), "b": box(32, 32, 1)}), "images of one size"),
        (lambda: encoder(obs={"a": box(16, 16, 1)}), "the image is too small"),
        (lambda: decoder(obs={"a": box(32, 32, 1)}), "make images of 64x64, but a is 32x32"),
    ],
)
def test_what_does_not_fit_the_spaces_is_said(build, match):
    with pytest.raises(ValueError, match=match):
        build()


# Images


def test_a_perfect_gray_image_reads_3764():
    image = tf.constant(normal(2, 5, 64, 64, 1))
    np.testing.assert_allclose(ImageNormal(image).log_prob(image), np.full((2, 5), -3763.97), 1e-5)


def test_an_image_likelihood_is_the_sum_over_its_pixels():
    mean, image = normal(2, 4, 4, 3), normal(2, 4, 4, 3)
    expected = (-0.5 * (image - mean) ** 2 - 0.5 * np.log(2 * np.pi)).sum((1, 2, 3))
    np.testing.assert_allclose(ImageNormal(tf.constant(mean)).log_prob(image), expected, rtol=1e-5)


def test_a_float16_decoder_is_judged_by_a_float32_sum():
    mean, image = normal(2, 64, 64, 1) * 0.1, tf.constant(normal(2, 64, 64, 1) * 0.1)
    exact = ImageNormal(tf.constant(mean)).log_prob(image)

    def error(precision):
        obs = {"image": box(64, 64, 1)}
        whole = Decoder(obs, 7, tiny.config().decoder, precision, RNG)
        whole._images = lambda _: {"image": tf.constant(mean, tf.float16)}
        found = whole(tf.zeros([2, 7]))["image"].log_prob(image)
        assert found.dtype == tf.float32
        return float(tf.reduce_max(abs(found - exact)))

    assert error(Precision(16)) < 0.01
    assert error(Precision(16, {"image_likelihood": 16})) > 0.1, "lowered on purpose"


def test_pixels_as_bernoullis_cost_their_cross_entropy():
    logits, brightness = normal(2, 4, 4, 3), RNG.random((2, 4, 4, 3)).astype(np.float32)
    probs = 1 / (1 + np.exp(-logits))
    expected = brightness * np.log(probs) + (1 - brightness) * np.log(1 - probs)
    dist = ImageBernoulli(tf.constant(logits))
    found = dist.log_prob(tf.constant(brightness - 0.5))
    np.testing.assert_allclose(found, expected.sum((1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(dist.mode(), probs - 0.5, atol=1e-6)


@pytest.mark.parametrize("dist", [ImageNormal, ImageBernoulli])
def test_what_a_network_has_to_give_for_an_image_makes_that_image(dist):
    image = tf.constant(RNG.uniform(-0.49, 0.49, (2, 4, 4, 1)).astype(np.float32))
    np.testing.assert_allclose(dist(dist.output_of(image)).mode(), image, atol=1e-5)
    black = tf.fill([4, 4, 1], -0.5)
    assert np.isfinite(dist.output_of(black)).all()


def test_running_statistics_are_those_of_all_images_while_there_are_few():
    images = RNG.uniform(-0.5, 0.5, (3, 2, 5, 4, 4, 1)).astype(np.float32)
    stats = PixelStats((4, 4, 1))
    for batch in images:
        stats.update(tf.constant(batch))
    flat = images.reshape(-1, 4, 4, 1)
    np.testing.assert_allclose(stats.mean, flat.mean(0), atol=1e-6)
    expected = (images - flat.mean(0)) / (flat.std(0) + 0.03)
    np.testing.assert_allclose(stats.standardize(tf.constant(images)), expected, atol=1e-3)


def test_the_bounds_of_a_pixel_are_the_darkest_and_brightest_it_has_been_and_slowly_close():
    images = RNG.uniform(-0.4, 0.4, (3, 2, 5, 4, 4, 1)).astype(np.float32)
    bounds = PixelBounds((4, 4, 1))
    bounds.update(tf.constant(images[0]))
    dark, bright = bounds.read()
    np.testing.assert_allclose(dark, images[0].min((0, 1)))
    np.testing.assert_allclose(bright, np.maximum(images[0].max((0, 1)), dark + 0.1))
    for batch in images[1:]:
        bounds.update(tf.constant(batch))
    np.testing.assert_allclose(bounds.read()[0], images.min((0, 1, 2)), atol=2e-4)
    np.testing.assert_allclose(bounds.read()[1], images.max((0, 1, 2)), atol=2e-4)
    before = bounds.read()
    for _ in range(20):
        bounds.update(tf.zeros([1, 4, 4, 1]))
    share = (bounds.read()[1] - bounds.read()[0]) / (before[1] - before[0])
    np.testing.assert_allclose(share, (1 - 2e-4) ** 20, atol=1e-5)


def test_within_its_bounds_a_pixel_of_gray_costs_what_one_of_black_does():
    config = tiny.config(decoder__image_dist="contrast")
    decoder = Decoder({"image": tiny.IMAGE}, 7, config.decoder, Precision(32), RNG)
    black = RNG.random((5, 64, 64, 1)).astype(np.float32)
    black[0], black[1] = 0, 1  # all that it can show
    gray = black * 0.4 + 0.3
    decoder.update_bounds({"image": tf.constant(gray - 0.5)})
    found = decoder(tf.constant(normal(5, 7)))["image"]
    plain = ImageBernoulli(found._logits)
    like = found.log_prob(tf.constant(gray - 0.5))
    np.testing.assert_allclose(like, plain.log_prob(tf.constant(black - 0.5)), rtol=1e-4)
    np.testing.assert_allclose(found.mode() + 0.5, (plain.mode() + 0.5) * 0.4 + 0.3, atol=1e-5)
    beyond = tf.ones_like(found.mode())
    assert np.isfinite(found.log_prob(beyond)).all(), "brighter than it has ever been"


def test_dense_image_nets_take_and_make_images_of_any_size():
    config = tiny.config(**{"(encoder|decoder)__image_net": "mlp", "encoder__image_stats": True})
    obs = {"image": box(5, 7, 1), "vector": box(3)}
    encoder = Encoder(obs, config.encoder, Precision(32), RNG)
    decoder = Decoder(obs, 7, config.decoder, Precision(32), RNG, encoder.image_stats)
    assert encoder.embed_size == config.encoder.mlp_layers[-1]
    data = {"image": tf.constant(normal(2, 3, 5, 7, 1)), "vector": tf.constant(normal(2, 3, 3))}
    encoder.update_stats(data)
    assert encoder(data).shape == (2, 3, encoder.embed_size)
    for variable in decoder.variables:
        variable.assign(tf.zeros_like(variable))
    dists = decoder(tf.constant(normal(2, 3, 7)))
    mean = np.broadcast_to(encoder.image_stats("image").mean, (2, 3, 5, 7, 1))
    np.testing.assert_allclose(dists["image"].mode(), mean)
    assert set(dists) == {"image", "vector"}


def test_no_weight_decay_or_step_touches_running_statistics():
    agent = tiny.agent(
        {"image": tiny.IMAGE}, encoder__image_stats=True, decoder__image_dist="contrast"
    )
    owned = {id(v) for v in agent.optimizers["model_opt"].owned}
    named = agent.wm.named_variables().items()
    stats = [v for k, v in named if "pixels" in k or "bounds" in k]
    assert len(stats) == 5 and not owned & {id(v) for v in stats}
    before = float(tf.reduce_sum(abs(stats[0])))
    agent.train(tiny.batch(agent))
    assert float(tf.reduce_sum(abs(stats[0]))) != before


def test_pixels_may_be_seen_and_made_in_squares_of_several_sizes():
    config = tiny.config(**{"(encoder|decoder)__image_net": "mlp"})
    config = config.update({r"(encoder|decoder)\.image_scales": 3})
    encoder = Encoder({"image": box(8, 4, 1)}, config.encoder, Precision(32), RNG)
    assert encoder.layers["dense0"].kernel.shape[0] == 32 + 8 + 2
    image = normal(3, 8, 4, 1)
    means = image.reshape(3, 2, 4, 1, 4, 1).sum((2, 4)).reshape(3, 2) / 4
    np.testing.assert_allclose(pool(tf.constant(image), 4), means, rtol=1e-4, atol=1e-5)
    decoder = Decoder({"image": box(8, 4, 1)}, 7, config.decoder, Precision(32), RNG)
    layers = {k: fill(v) for k, v in decoder.layers.items() if k.startswith("dense_image")}
    features = tf.constant(normal(3, 7))
    hidden = decoder.hidden(features).value
    expected = sum(
        np.repeat(np.repeat(layers[name](hidden).numpy().reshape(3, 8 // n, 4 // n), n, 1), n, 2)
        for name, n in (("dense_image", 1), ("dense_image_2", 2), ("dense_image_4", 4))
    )
    found = decoder(features)["image"].mode()[..., 0]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_pixels_that_change_rarely_count_more():
    config = tiny.config(encoder__image_stats=True, decoder__image_weights=True)
    obs = {"image": tiny.IMAGE}
    encoder = Encoder(obs, config.encoder, Precision(32), RNG)
    decoder = Decoder(obs, 7, config.decoder, Precision(32), RNG, encoder.image_stats)
    images = tf.zeros([10, 64, 64, 1]).numpy() - 0.5
    images[::2, 0, 0] = 0.5  # changes all the time
    images[0, 9, 9] = 0.5  # changes once
    encoder.update_stats({"image": tf.constant(images)})
    image = encoder.image_stats("image").mean.numpy()
    dist = decoder(tf.constant(normal(7)[None]))["image"]
    errors = []
    for place in (0, 9):
        wrong = dist.mode()[0].numpy()
        right = dist.log_prob(tf.constant(wrong)).numpy()[0]
        wrong[place, place] += 1
        errors.append(right - dist.log_prob(tf.constant(wrong)).numpy()[0])
    assert image[9, 9, 0] == pytest.approx(-0.4) and errors[1] > 1.5 * errors[0] > 0


@pytest.mark.parametrize("second", [tiny.IMAGE, tiny.VECTOR])
def test_two_observations_whose_layers_would_have_one_name_are_refused(second):
    settings = {"decoder__image_net": "mlp", "decoder__image_scales": 2}
    with pytest.raises(ValueError, match="two layers have the name dense_image_2; rename"):
        tiny.agent({"image": tiny.IMAGE, "image_2": second}, **settings)


def test_squares_that_do_not_tile_an_image_are_refused_by_name():
    config = tiny.config(**{"encoder__image_net": "mlp"}).update({"encoder.image_scales": 4})
    with pytest.raises(ValueError, match=r"encoder.image_scales: got 4.* image, which is 12x8"):
        Encoder({"image": box(12, 8, 1)}, config.encoder, Precision(32), RNG)
