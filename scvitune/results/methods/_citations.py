"""What a methods section has to cite: reference by key, in one style."""

from __future__ import annotations

REFERENCES = {
    "Gayoso et al., 2022": "Gayoso A, Lopez R, Xing G, et al. A Python library for probabilistic "
    "analysis of single-cell omics data. Nature Biotechnology 40, 163–166 (2022). "
    "doi:10.1038/s41587-021-01206-w",
    "Lopez et al., 2018": "Lopez R, Regier J, Cole MB, Jordan MI, Yosef N. Deep generative "
    "modeling for single-cell transcriptomics. Nature Methods 15, 1053–1058 (2018). "
    "doi:10.1038/s41592-018-0229-2",
    "Svensson et al., 2020": "Svensson V, Gayoso A, Yosef N, Pachter L. Interpretable factor "
    "models of single-cell RNA-seq via variational autoencoders. Bioinformatics 36, 3418–3421 "
    "(2020). doi:10.1093/bioinformatics/btaa169",
    "Lopez et al., 2022": "Lopez R, Li B, Keren-Shaul H, et al. DestVI identifies continuums of "
    "cell types in spatial transcriptomics data. Nature Biotechnology 40, 1360–1369 (2022). "
    "doi:10.1038/s41587-022-01272-8",
    "Liaw et al., 2018": "Liaw R, Liang E, Nishihara R, Moritz P, Gonzalez JE, Stoica I. Tune: a "
    "research platform for distributed model selection and training. arXiv:1807.05118 (2018).",
    "Bergstra et al., 2011": "Bergstra J, Bardenet R, Bengio Y, Kégl B. Algorithms for "
    "hyper-parameter optimization. Advances in Neural Information Processing Systems 24 (2011).",
    "Bergstra et al., 2013": "Bergstra J, Yamins D, Cox DD. Making a science of model search: "
    "hyperparameter optimization in hundreds of dimensions for vision architectures. ICML, PMLR "
    "28(1), 115–123 (2013).",
    "Akiba et al., 2019": "Akiba T, Sano S, Yanase T, Ohta T, Koyama M. Optuna: a "
    "next-generation hyperparameter optimization framework. KDD, 2623–2631 (2019). "
    "doi:10.1145/3292500.3330701",
    "Li et al., 2020": "Li L, Jamieson K, Rostamizadeh A, et al. A system for massively parallel "
    "hyperparameter tuning. Proceedings of Machine Learning and Systems 2, 230–246 (2020).",
    "Li et al., 2018": "Li L, Jamieson K, DeSalvo G, Rostamizadeh A, Talwalkar A. Hyperband: a "
    "novel bandit-based approach to hyperparameter optimization. Journal of Machine Learning "
    "Research 18(185), 1–52 (2018).",
    "Falkner et al., 2018": "Falkner S, Klein A, Hutter F. BOHB: robust and efficient "
    "hyperparameter optimization at scale. ICML, PMLR 80, 1437–1446 (2018).",
    "Jaderberg et al., 2017": "Jaderberg M, Dalibard V, Osindero S, et al. Population based "
    "training of neural networks. arXiv:1711.09846 (2017).",
    "Parker-Holder et al., 2020": "Parker-Holder J, Nguyen V, Roberts SJ. Provably efficient "
    "online hyperparameter optimization with population-based bandits. Advances in Neural "
    "Information Processing Systems 33 (2020).",
    "Golovin et al., 2017": "Golovin D, Solnik B, Moitra S, Kochanski G, Karro J, Sculley D. "
    "Google Vizier: a service for black-box optimization. KDD, 1487–1495 (2017). "
    "doi:10.1145/3097983.3098043",
    "Hansen and Ostermeier, 2001": "Hansen N, Ostermeier A. Completely derandomized "
    "self-adaptation in evolution strategies. Evolutionary Computation 9(2), 159–195 (2001). "
    "doi:10.1162/106365601750190398",
    "Nomura and Shibata, 2024": "Nomura M, Shibata M. cmaes: a simple yet practical Python "
    "library for CMA-ES. arXiv:2402.01373 (2024).",
    "Deb et al., 2002": "Deb K, Pratap A, Agarwal S, Meyarivan T. A fast and elitist "
    "multiobjective genetic algorithm: NSGA-II. IEEE Transactions on Evolutionary Computation "
    "6(2), 182–197 (2002). doi:10.1109/4235.996017",
    "Li et al., 2022": "Li B, Zhang W, Guo C, et al. Benchmarking spatial and single-cell "
    "transcriptomics integration methods for transcript distribution prediction and cell type "
    "deconvolution. Nature Methods 19, 662–670 (2022). doi:10.1038/s41592-022-01480-9",
    "Luecken et al., 2022": "Luecken MD, Büttner M, Chaichoompu K, et al. Benchmarking "
    "atlas-level data integration in single-cell genomics. Nature Methods 19, 41–50 (2022). "
    "doi:10.1038/s41592-021-01336-8",
    "Burda et al., 2016": "Burda Y, Grosse R, Salakhutdinov R. Importance weighted autoencoders. "
    "ICLR, arXiv:1509.00519 (2016).",
    "Hutter et al., 2014": "Hutter F, Hoos H, Leyton-Brown K. An efficient approach for "
    "assessing hyperparameter importance. ICML, PMLR 32(1), 754–762 (2014).",
    "Wolf et al., 2018": "Wolf FA, Angerer P, Theis FJ. SCANPY: large-scale single-cell gene "
    "expression data analysis. Genome Biology 19, 15 (2018). doi:10.1186/s13059-017-1382-0",
    "Stuart et al., 2019": "Stuart T, Butler A, Hoffman P, et al. Comprehensive integration of "
    "single-cell data. Cell 177, 1888–1902 (2019). doi:10.1016/j.cell.2019.05.031",
    "Lause et al., 2021": "Lause J, Berens P, Kobak D. Analytic Pearson residuals for "
    "normalization of single-cell RNA-seq UMI data. Genome Biology 22, 258 (2021). "
    "doi:10.1186/s13059-021-02451-7",
    "Watanabe et al., 2023": "Watanabe S, Bansal A, Hutter F. PED-ANOVA: efficiently quantifying "
    "hyperparameter importance in arbitrary subspaces. IJCAI, 4389–4396 (2023).",
}
"""Citation as in the text -> the reference."""

MODELS = {
    "SCVI": ("scVI", "Lopez et al., 2018"),
    "LinearSCVI": ("LDVAE (LinearSCVI)", "Svensson et al., 2020"),
    "CondSCVI": ("CondSCVI", "Lopez et al., 2022"),
    "DestVI": ("DestVI", "Lopez et al., 2022"),
}
"""Model -> its name in publications, and what to cite."""

SEARCHERS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "random": ("drawn at random", "", ()),
    "grid": ("of a grid", "", ()),
    "qmc": ("of a scrambled Sobol sequence", "optuna", ("Akiba et al., 2019",)),
    "tpe": (
        "proposed by a tree-structured Parzen estimator",
        "hyperopt",
        ("Bergstra et al., 2011", "Bergstra et al., 2013"),
    ),
    "optuna_tpe": (
        "proposed by a multivariate tree-structured Parzen estimator",
        "optuna",
        ("Bergstra et al., 2011", "Akiba et al., 2019"),
    ),
    "gp": (
        "proposed by Bayesian optimisation with a Gaussian process",
        "optuna",
        ("Akiba et al., 2019",),
    ),
    "cmaes": (
        "proposed by CMA-ES",
        "cmaes",
        ("Hansen and Ostermeier, 2001", "Nomura and Shibata, 2024"),
    ),
    "nsga2": ("proposed by NSGA-II", "optuna", ("Deb et al., 2002", "Akiba et al., 2019")),
    "bohb": ("proposed by the model of BOHB", "", ("Falkner et al., 2018",)),
    "local": ("proposed by a local search with restarts", "", ()),
}
"""Searcher -> how configurations came about, by which package, and what to cite.

Those of searchers that learn are ``proposed by`` something, see `tell_proposed`.
"""

SCHEDULERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "asha": ("asynchronous successive halving (ASHA)", ("Li et al., 2020",)),
    "async_hyperband": (
        "asynchronous Hyperband",
        ("Li et al., 2018", "Li et al., 2020"),
    ),
    "hyperband": ("Hyperband", ("Li et al., 2018",)),
    "bohb": ("the Hyperband brackets of BOHB", ("Li et al., 2018", "Falkner et al., 2018")),
    "median": ("the median stopping rule", ("Golovin et al., 2017",)),
    "pbt": ("population based training", ("Jaderberg et al., 2017",)),
    "pb2": ("population based bandits (PB2)", ("Parker-Holder et al., 2020",)),
}
"""Scheduler -> its name in publications, and what to cite; fifo stops nothing."""

METRICS: dict[str, str] = {
    "marginal_ll": "Burda et al., 2016",
    "imputation_mae": "Lopez et al., 2018",
    "scib": "Luecken et al., 2022",
    "proportion": "Li et al., 2022",
}
"""Beginning of a metric's name -> whose it is."""

TOGETHER = ("nsga2",)
"""Searchers that optimise all metrics that were asked for, not the first alone."""

POPULATION = ("pbt", "pb2")
