"""The files of a container's build context, copied there by `nnunet_da.submission.context`: none needs this package."""
