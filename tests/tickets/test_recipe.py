import pytest
import torch
from models import MODELS

from graphsparse.testing import random_graph
from graphsparse.tickets import find_teddy_ticket, train_teacher
from graphsparse.tickets.recipe import distillation_nodes, observed_graph, observed_nodes
from graphsparse.training import build_model, predict

OPTIONS = {"edge_sparsity": 0.4, "weight_sparsity": 0.5, "epochs": 4}


def partly_labelled():
    """A graph with nodes that are in none of the three sets."""
    data = random_graph()
    unlabelled = torch.arange(60) % 5 == 0
    for key in ("train_mask", "val_mask", "test_mask"):
        data[key] = data[key] & ~unlabelled
    return data


def test_teacher_is_the_dense_model():
    data = random_graph()
    logits, result = train_teacher(MODELS["GCN"], data, epochs=5, seed=1)
    model = MODELS["GCN"]()
    model.load_state_dict(result.state_dict)
    assert torch.equal(predict(model, data), logits)


def test_observed_graph_holds_no_hidden_node():
    data = partly_labelled()
    hidden = data.val_mask | data.test_mask
    data.edge_attr = data.edge_index.t().clone()
    observed = observed_graph(data)
    assert observed.num_nodes == int((~hidden).sum())
    assert torch.equal(observed.x, data.x[~hidden])
    assert not hidden[observed.edge_attr].any()
    assert observed.num_edges == int((~hidden[data.edge_index]).all(0).sum())
    assert not (observed.val_mask | observed.test_mask).any()


def test_observed_graph_of_sparse_features_is_the_same():
    data = partly_labelled()
    sparse = data.clone()
    sparse.x = data.x.to_sparse_csr()
    ours, expected = observed_graph(sparse), observed_graph(data)
    assert torch.equal(ours.x.to_dense(), expected.x)
    assert torch.equal(ours.edge_index, expected.edge_index)
    assert ours.num_nodes == expected.num_nodes


@pytest.mark.parametrize(("name", "number"), [("train", 16), ("observed", 28), ("all", 60)])
def test_distillation_nodes(name, number):
    assert int(distillation_nodes(partly_labelled(), name).sum()) == number


def disturb(data, nodes):
    """Change features and edges of the given nodes."""
    data = data.clone()
    data.x = torch.where(nodes.view(-1, 1), data.x.flip(1) * 3, data.x)
    touched = nodes[data.edge_index].any(0)
    data.edge_index = data.edge_index[:, ~touched]
    return data


def test_inductive_training_cannot_see_hidden_nodes():
    data = partly_labelled()
    other = disturb(data, data.val_mask | data.test_mask)
    # Labels decide which epoch is kept, so one epoch leaves no choice.
    options = {**OPTIONS, "epochs": 1, "inductive": True, "distill_nodes": "observed"}
    first, second = (find_teddy_ticket(MODELS["GCN"], d, **options) for d in (data, other))
    for name, tensor in first.state_dict.items():
        assert torch.equal(second.state_dict[name], tensor)
    transductive = {**options, "inductive": False}
    first, second = (find_teddy_ticket(MODELS["GCN"], d, **transductive) for d in (data, other))
    assert any(not torch.equal(second.state_dict[name], tensor) for name, tensor in first.state_dict.items())


def test_inductive_teacher_says_nothing_of_hidden_nodes():
    data = partly_labelled()
    logits, _ = train_teacher(MODELS["GCN"], data, inductive=True, epochs=3)
    observed = observed_nodes(data)
    assert not logits[~observed].any()
    assert logits[observed].any(1).all()


def test_teacher_of_other_nodes_does_not_reach_the_student():
    data = partly_labelled()
    logits, _ = train_teacher(MODELS["GCN"], data, epochs=3)

    def find(nodes, teacher):
        return find_teddy_ticket(MODELS["GCN"], data, distill_nodes=nodes, teacher=teacher, **OPTIONS).state_dict

    changed = torch.where(data.train_mask.view(-1, 1), logits, -logits)
    for nodes, same in (("train", True), ("observed", False), ("all", False)):
        first, second = find(nodes, logits), find(nodes, changed)
        assert all(torch.equal(first[name], second[name]) for name in first) == same


def test_student_starts_where_the_teacher_started():
    first, second = (build_model(MODELS["GCN"], 9) for _ in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_adj_t_alone_is_refused():
    data = random_graph()
    data.adj_t = torch.sparse_coo_tensor(data.edge_index, torch.ones(data.num_edges), (60, 60)).to_sparse_csr()
    del data.edge_index
    for find in (train_teacher, lambda m, d: find_teddy_ticket(m, d, **OPTIONS)):
        with pytest.raises(ValueError, match="to_edge_index"):
            find(MODELS["GCN"], data)
