"""What the core itself provides, found through an entry point like any other plugin."""

from benchkit.hookspecs import Entry, hookimpl


@hookimpl
def benchkit_classifiers() -> dict[str, Entry]:
    return {
        "linear": Entry(
            "normalised features and a linear layer, AdamW, cosine schedule", "benchkit.classifiers.linear:Linear"
        ),
        "logreg": Entry(
            "L2 logistic regression (scikit-learn), C chosen on a validation split",
            "benchkit.classifiers.logreg:LogReg",
        ),
        "centroid": Entry("cosine similarity to each class's mean feature", "benchkit.classifiers.centroid:Centroid"),
        "knn": Entry("votes of the k nearest training examples, by cosine", "benchkit.classifiers.knn:KNN"),
        "retrieval": Entry(
            "no probe: is the nearest by cosine, are the nearest, of the same class",
            "benchkit.classifiers.retrieval:Retrieval",
        ),
        "clustering": Entry(
            "no probe: do k-means clusters, as many as classes, coincide with them (scikit-learn)",
            "benchkit.classifiers.clustering:Clustering",
        ),
        "mlp": Entry(
            "normalised features and a multilayer perceptron, AdamW, cosine schedule", "benchkit.classifiers.mlp:MLP"
        ),
        "prototypical": Entry(
            "learnt prototypes of each class among the tokens (Bird-MAE's probe)",
            "benchkit.classifiers.prototypical:Prototypical",
        ),
        "attentive": Entry(
            "attention blocks over the tokens and a learnt query (V-JEPA 2's probe)",
            "benchkit.classifiers.attentive:Attentive",
        ),
        "attentive-pool": Entry(
            "keys and values of the tokens and a learnt query (BioFoundation's attentive probe)",
            "benchkit.classifiers.attentive_pool:AttentivePool",
        ),
        "finetune": Entry(
            "the whole backbone and a linear layer, layer-wise learning rates, mixed precision (torch backbones)",
            "benchkit.classifiers.finetune:Finetune",
        ),
    }


@hookimpl
def benchkit_scorers() -> dict[str, Entry]:
    return {
        "random": Entry("activation vectors drawn at random, or random directions", "benchkit.scorers.random:Random"),
        "kmeans": Entry("centres of mini-batch k-means, seeded by k-means++", "benchkit.scorers.kmeans:KMeans"),
        "pca": Entry("projections on the principal components", "benchkit.scorers.pca:PCA"),
        "sae": Entry("features of a sparse autoencoder, from its file", "benchkit.sae.scorer:SAE"),
        "fitted": Entry(
            "a scorer that `benchkit activations fit` wrote, from its file", "benchkit.scorers.saved:Saved"
        ),
    }
