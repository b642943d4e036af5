"""One network for several labelled domains, each with structures of its own: shared filters, domain-specific layers.

Boutillon et al., "Multi-task, multi-domain deep segmentation with shared representations and contrastive regularization
for sparse pediatric datasets", arXiv:2105.10310, 2021 (below: the paper). `norm` and `heads` are what each domain has
of its own, `network` joins them to a U-Net and gives each domain's stock U-Net back, `attention` is the paper's
Att-UNet, `losses` and `contrastive` are what is minimised (eq. 2 and eq. 3).

Wherever a batch holds all K domains, sample i is of domain i mod K.
"""
