"""Test that each loss trains the weights that it should train, and no others."""

import pytest
import torch as th

from sb3_visual_td3.visual_td3 import losses
from tests.image_env import ImageEnv, VectorImageEnv

KINDS = {"CnnPolicy": ImageEnv, "MultiInputPolicy": VectorImageEnv}


def filled(model):
    model.learn(30)
    return model._sample(8)


def gradients_of_actor_loss(model, batch):
    """Update the actor, and return the gradients of each parameter group before clipping."""
    caught = {}

    class Catch:
        def after_backward(self, update):
            caught.update({n: [p.grad.clone() for p in group] for n, group in update.groups.items()})

        def after_clipping(self, update):
            pass

        def after_step(self, update):
            pass

    model.observers.append(Catch())
    model.update_actor(batch)
    return caught


@pytest.mark.parametrize("objective", ["q1", "min", "mean"])
def test_the_actors_encoder_is_reached_through_the_action_alone(make_model, objective):
    """If the critic's weights for the action are 0, all gradients of the actor's loss must be 0."""
    model = make_model(policy_kwargs={"encoder": "separate"}, actor_objective=objective, pre_tanh_penalty=0.0)
    batch = filled(model)
    with th.no_grad():
        for q_network in model.critic.q_networks:
            q_network[0].weight[:, -2:] = 0.0  # the two columns that read the action
    gradients = gradients_of_actor_loss(model, batch)
    assert set(gradients) == {"actor_cnn", "actor_mlp"}
    assert all((g == 0).all() for group in gradients.values() for g in group)


def test_the_actors_encoder_gets_gradients_if_the_critic_reads_the_actors_features(make_model):
    """If the critic reads the actor's features, gradients reach the encoder even if the action has no effect."""
    model = make_model(policy_kwargs={"encoder": "separate"}, preset="td3")
    batch = filled(model)
    with th.no_grad():
        model.critic.q_networks[0][0].weight[:, -2:] = 0.0
    features = model.actor.encode(batch.observations)
    leak = losses.actor_loss(model.critic.score(features, model.actor.act(features)))
    leaked = th.autograd.grad(leak, model.groups["actor_cnn"])
    assert any((g != 0).any() for g in leaked)


@pytest.mark.parametrize("policy", KINDS)
@pytest.mark.parametrize(
    "kwargs",
    [{"preset": "td3"}, {"preset": "visual", "actor_objective": "q1", "pre_tanh_penalty": 0.0, "precision": "fp32"}],
)
def test_the_actors_gradient_is_the_chain_rule_through_the_action(make_model, policy, kwargs):
    """Compute dQ1/da on the critic alone, backpropagate it through the actor, and compare with the update."""
    model = make_model(policy, KINDS[policy](), policy_kwargs={"encoder": "separate"}, max_grad_norm=1e9, **kwargs)
    batch = filled(model)
    actions = model.actor(batch.observations)
    leaf = actions.detach().requires_grad_()
    (dq_da,) = th.autograd.grad(-model.critic(batch.observations, leaf)[0].mean(), leaf)
    expected = th.autograd.grad(actions, model.groups["actor_cnn"], grad_outputs=dq_da)
    found = gradients_of_actor_loss(model, batch)["actor_cnn"]
    assert any((g != 0).any() for g in found)
    for a, b in zip(expected, found, strict=True):
        # Norms are compared, because a single number may consist mostly of rounding errors.
        assert (a - b).norm() <= 1e-4 * b.norm()


def test_a_shared_encoder_is_trained_by_the_critic_alone(make_model):
    model = make_model(policy_kwargs={"encoder": "shared"}, critic_cnn_lr=0.0, critic_lr=0.0)
    encoder = [p.detach().clone() for p in model.groups["critic_cnn"]]
    actor = [p.detach().clone() for p in model.groups["actor_mlp"]]
    model.learn(30)
    assert all(th.equal(p, q) for p, q in zip(model.groups["critic_cnn"], encoder, strict=True))
    assert any(not th.equal(p, q) for p, q in zip(model.groups["actor_mlp"], actor, strict=True))


def test_a_shared_encoder_has_one_target_that_moves_once(make_model):
    model = make_model(policy_kwargs={"encoder": "shared"}, tau=0.25)
    assert model.actor.features_extractor is model.critic.features_extractor
    assert model.actor_target.features_extractor is model.critic_target.features_extractor
    assert model.actor_target.features_extractor is not model.actor.features_extractor
    with th.no_grad():
        for p in model.critic_target.features_extractor.parameters():
            p.add_(1.0)
    before = [p.clone() for p in model.critic_target.features_extractor.parameters()]
    model.soft_update()
    for p, old, online in zip(
        model.critic_target.features_extractor.parameters(), before, model.groups["critic_cnn"], strict=True
    ):
        th.testing.assert_close(p, 0.75 * old + 0.25 * online)


@pytest.mark.parametrize("policy", KINDS)
@pytest.mark.parametrize("encoder", ["separate", "shared"])
def test_the_actors_update_leaves_no_gradient_in_the_critics(make_model, policy, encoder):
    model = make_model(policy, KINDS[policy](), policy_kwargs={"encoder": encoder})
    batch = filled(model)
    model.update_critic(batch)
    assert all(p.grad is not None for p in model.critic.parameters())
    model.update_actor(batch)
    assert all(p.grad is None for p in model.critic.parameters())
    assert all(p.grad is not None for p in model.actor.parameters())
    assert all(p.grad is None for net in (model.critic_target, model.actor_target) for p in net.parameters())


def test_with_the_td3_preset_the_actors_update_does_not_change_the_critics_gradients(make_model):
    model = make_model(preset="td3")
    batch = filled(model)
    model.update_critic(batch)
    left = [p.grad.clone() for p in model.critic.parameters()]
    model.update_actor(batch)
    assert all(th.equal(p.grad, old) for p, old in zip(model.critic.parameters(), left, strict=True))


@pytest.mark.parametrize("policy", KINDS)
def test_no_loss_on_the_action_reaches_a_shared_encoder(make_model, policy):
    """This must hold for any backward() on the actor, not only in the model's update."""
    model = make_model(policy, KINDS[policy](), policy_kwargs={"encoder": "shared"}, precision="fp32")
    batch = filled(model)
    model.critic.optimizer.zero_grad()
    model.actor(batch.observations).sum().backward()
    assert all(p.grad is None for p in model.groups["critic_cnn"])
    assert any((p.grad != 0).any() for p in model.groups["actor_mlp"])


def test_a_shared_combined_extractor_is_trained_by_the_critics_loss_alone(make_model):
    model = make_model("MultiInputPolicy", VectorImageEnv(), policy_kwargs={"encoder": "shared"})
    batch = filled(model)
    assert model.actor.features_extractor is model.critic.features_extractor
    encoder = list(model.critic.features_extractor.parameters())
    assert {id(p) for p in encoder} == {id(p) for p in model.groups["critic_cnn"]}
    model.critic.optimizer.zero_grad()
    before = [p.detach().clone() for p in encoder]
    model.update_actor(batch)
    assert all(p.grad is None and th.equal(p, q) for p, q in zip(encoder, before, strict=True))
    model.update_critic(batch)
    assert any((p.grad != 0).any() for p in encoder)
    assert any(not th.equal(p, q) for p, q in zip(encoder, before, strict=True))


def test_a_tau_of_zero_freezes_the_targets(make_model):
    model = make_model(tau=0.0)
    before = [p.clone() for p in (*model.critic_target.parameters(), *model.actor_target.parameters())]
    model.learn(30)
    after = [*model.critic_target.parameters(), *model.actor_target.parameters()]
    assert all(th.equal(p, q) for p, q in zip(before, after, strict=True))


def test_sharing_both_ways_at_once_is_refused(make_model):
    with pytest.raises(ValueError, match="share_features_extractor"):
        make_model(policy_kwargs={"encoder": "shared", "share_features_extractor": True})
    with pytest.raises(ValueError, match="encoder"):
        make_model("MlpPolicy", "Pendulum-v1", policy_kwargs={"encoder": "shared"})
    with pytest.raises(ValueError, match="both"):
        make_model(env=ImageEnv(), policy_kwargs={"encoder": "both"})
